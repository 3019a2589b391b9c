"""From settings to a backend, in whichever process it will run."""

from pathlib import Path

from medreward.artifacts.manifest import Manifest
from medreward.backends.base import Backend
from medreward.backends.fake import FakeBackend
from medreward.settings import Settings


def open_backend(settings: Settings, manifest: Manifest, folder: Path | None) -> Backend:
    if folder is None:
        return FakeBackend(settings.fake_delay_ms / 1000)
    from medreward.backends.onnx import OnnxBackend  # loads the runtime

    return OnnxBackend(folder, manifest, settings.device, settings.threads, settings.feature_cache_bytes)
