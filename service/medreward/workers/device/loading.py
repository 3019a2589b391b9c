"""Opens the backend that the settings ask for, in whichever process it will run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medreward.artifacts.manifest import Manifest
from medreward.backends.base import Backend, RankSeat
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.workers.device.spread import Spread

if TYPE_CHECKING:
    from medreward.backends.torch_vlm.backend import TorchVlmBackend


def open_backend(settings: Settings, manifest: Manifest, folder: Path | None) -> Backend:
    """Returns the backend of the model; without a folder it is the fake one. Fails with a ConfigurationError."""
    if settings.backend == "vllm":
        return open_in_vllm(settings, manifest, folder)
    if settings.tensor_parallel > 1 and (folder is None or manifest.runtime != "torch_vlm"):
        raise ConfigurationError(
            f"--tensor-parallel is for models of runtime torch_vlm, and {manifest.name} has {manifest.runtime}"
        )
    if manifest.runtime != "torch_vlm" and settings.dtype != "auto":
        raise ConfigurationError(f"{manifest.name} runs in fp32 alone: leave dtype at auto")
    if folder is None:
        from medreward.backends.fake import FakeBackend  # only a server of `--model fake` has the test double

        return FakeBackend(settings.fake_delay_ms / 1000)
    if settings.tensor_parallel > 1:
        if manifest.experts:
            raise ConfigurationError(f"{manifest.name} has experts, which --tensor-parallel cannot spread")
        return Spread(settings, manifest, folder)
    if manifest.runtime == "torch_vlm":
        backend = open_vlm(settings, manifest, folder)
        if not manifest.experts:
            return backend
        from medreward.backends.torch_vlm.experts import open_experts  # loads torch

        return open_experts(folder, manifest, backend)
    from medreward.backends.onnx import OnnxBackend  # loads the runtime

    return OnnxBackend(folder, manifest, settings.device, settings.threads, settings.feature_cache_bytes)


def open_in_vllm(settings: Settings, manifest: Manifest, folder: Path | None) -> Backend:
    """Returns the backend that runs a VLM in vLLM. Fails with a ConfigurationError, also where there is no vLLM."""
    if folder is None or manifest.runtime != "torch_vlm":
        raise ConfigurationError(
            f"--backend vllm is for models of runtime torch_vlm, and {manifest.name} has {manifest.runtime}"
        )
    try:
        from medreward.backends.vllm import open_vllm  # loads vLLM
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{sys.executable} has no module {error.name}: name the interpreter that has vLLM with --worker-python"
        ) from None
    return open_vllm(folder, manifest, settings)


def open_vlm(settings: Settings, manifest: Manifest, folder: Path, seat: RankSeat | None = None) -> "TorchVlmBackend":
    """Returns the backend of a VLM. Fails with a ConfigurationError, also where torch is not installed."""
    try:
        from medreward.backends.torch_vlm.backend import open_torch_vlm  # loads torch
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is not installed: this model needs medreward[vlm]") from None
    return open_torch_vlm(folder, manifest, settings, seat)
