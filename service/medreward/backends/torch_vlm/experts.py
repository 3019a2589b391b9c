"""Several experts on one base: an adapter and a head each, of which a group is scored by one."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from medreward.artifacts.manifest import ExpertFiles, Manifest
from medreward.backends.base import CostModel, Counts, Group, Logits
from medreward.backends.torch_vlm.backend import TorchVlmBackend
from medreward.backends.torch_vlm.heads import Heads, TrainedHeads
from medreward.errors import ConfigurationError
from medreward.types import Runtime

PREFIX: Final = "base_model.model.model."  # peft's names of what lies within the model that `Backbone` holds
GENERAL: Final = ""  # the base with its own head


@dataclass(frozen=True, slots=True)
class Expert:
    """What scores the groups of one expert. `sees` is whether its adapter changes what images look like."""

    heads: Heads
    sees: bool


class ExpertsBackend:
    """Scores each group by its expert, and those of none by the base. All share the base, and what images look like to
    it.
    """

    def __init__(self, backend: TorchVlmBackend, experts: Mapping[str, Expert]) -> None:
        self._backend = backend
        self._experts = {GENERAL: Expert(backend.heads, sees=False), **experts}
        self._layers = list(_layers(self.base))
        self.runtime: Final[Runtime] = backend.runtime

    @property
    def base(self) -> nn.Module:
        """The model without heads, with the adapters of all experts on it."""
        base: nn.Module = self._backend.backbone.base
        return base

    @property
    def cost(self) -> CostModel:
        return self._backend.cost

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        logits: dict[int, Logits] = {}
        for name in dict.fromkeys(group.expert for group in groups):
            places = [place for place, group in enumerate(groups) if group.expert == name]
            with self._speaking(name):
                logits |= zip(places, self._backend.score([self._seen(groups[p]) for p in places]), strict=True)
        return [logits[place] for place in range(len(groups))]

    def warm_up(self) -> None:
        for name in self._experts:
            with self._speaking(name):
                self._backend.warm_up()

    def release(self) -> None:
        self._backend.release()

    def rest(self) -> None:
        for expert in self._experts.values():
            expert.heads.to("cpu")
        self._backend.rest()

    def resume(self) -> None:
        for expert in self._experts.values():
            expert.heads.to(self.runtime.device)
        self._backend.resume()

    def take_counts(self) -> Counts:
        return self._backend.take_counts()

    @contextmanager
    def _speaking(self, name: str) -> Iterator[None]:
        """Lets this expert score, within it. The general model speaks otherwise."""
        for layer in self._layers:
            layer.enable_adapters(name in layer.r)
            if name in layer.r:
                layer.set_adapter(name)
        self._backend.heads = self._experts[name].heads
        try:
            yield
        finally:
            self._backend.heads = self._experts[GENERAL].heads

    def _seen(self, group: Group) -> Group:
        """Returns the group with images of the expert's own, where its adapter changes what images look like."""
        if not group.images or not self._experts[group.expert].sees:
            return group
        first, *further = (replace(image, tenant=f"{image.tenant}/{group.expert}") for image in group.images)
        return replace(group, image=first, further=tuple(further))


def open_experts(folder: Path, manifest: Manifest, backend: TorchVlmBackend) -> ExpertsBackend:
    """Returns the backend with the manifest's experts on its base.

    Fails with a ConfigurationError for an adapter that cannot be taken off again, or does not fit the base.
    """
    experts = {name: _open(name, folder, files, manifest, backend) for name, files in manifest.experts.items()}
    return ExpertsBackend(backend, experts)


def _open(name: str, folder: Path, files: ExpertFiles, manifest: Manifest, backend: TorchVlmBackend) -> Expert:
    backbone = backend.backbone
    heads = TrainedHeads(folder / files.head, backbone.width, len(manifest.dimensions), backbone.device)
    modules = _inject(name, folder, files, backbone.base)
    decoder = next(path for path, module in backbone.base.named_modules() if module is backbone.base.get_decoder())
    return Expert(heads, sees=not all(module.startswith(f"{decoder}.") for module in modules))


def _inject(name: str, folder: Path, files: ExpertFiles, base: nn.Module) -> set[str]:
    """Puts the adapter on the base, beside those that are there, and returns the modules that it changes."""
    from peft import LoraConfig, PeftConfig, inject_adapter_in_model, set_peft_model_state_dict

    where = f"expert {name} in {folder}"
    try:
        config: Any = PeftConfig.from_peft_type(**json.loads((folder / files.adapter_config).read_bytes()))
        weights = load_file(folder / files.adapter)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ConfigurationError(f"{where} cannot be read: {error}") from None
    if not isinstance(config, LoraConfig) or config.bias != "none":
        raise ConfigurationError(f"{where} has more than a LoRA, and cannot share its base: serve it by itself")
    within = {key.removeprefix(PREFIX): weight for key, weight in weights.items() if ".lora_" in key}
    ranks = {key.rpartition(".lora_")[0]: len(w) for key, w in within.items() if key.endswith("A.weight")}
    if strange := sorted((weights.keys() - {PREFIX + key for key in within}) | (ranks.keys() - _paths(base))):
        raise ConfigurationError(f"{where} changes what its base has not, or what all share: {', '.join(strange[:3])}")
    config.inference_mode = True
    config.target_modules, config.rank_pattern = set(ranks), ranks
    config.alpha_pattern = {module: _alpha(config, f"model.{module}") for module in ranks}
    config.layers_to_transform = config.exclude_modules = config.modules_to_save = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # it warns of a second adapter; what it would say of weights is checked here
            inject_adapter_in_model(config, base, name)
            loaded = set_peft_model_state_dict(base, within, name)
    except Exception as error:  # peft raises nothing narrower
        raise ConfigurationError(f"peft cannot put {where} on its base: {error}") from error
    if loaded.unexpected_keys:
        raise ConfigurationError(f"{where} has what no module takes: {', '.join(loaded.unexpected_keys[:3])}")
    return set(ranks)


def _alpha(config: Any, module: str) -> float:
    from peft.utils.other import get_pattern_key

    alpha: float = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), module), config.lora_alpha)
    return alpha


def _paths(base: nn.Module) -> set[str]:
    """Returns the modules of the base, by the names that they have without adapters."""
    return {path.replace(".base_layer", "") for path, _ in base.named_modules()}


def _layers(base: nn.Module) -> Iterator[Any]:
    """Yields the layers that have adapters."""
    from peft.tuners.lora import LoraLayer

    yield from (module for module in base.modules() if isinstance(module, LoraLayer))
