"""An expert on disk: what it changes of its base, its head, and what its manifest says."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import AutoConfig

from medreward.artifacts.manifest import Manifest, read_manifest
from medreward.artifacts.repository import MANIFEST_FILE
from medreward.backends.torch_vlm.adapter import has_adapter
from medreward.backends.torch_vlm.heads import TrainedHeads
from medreward.backends.torch_vlm.names import file_names
from medreward.errors import ConfigurationError
from medreward.lab.merging.heads import Head
from medreward.lab.merging.lora import Lora
from medreward.lab.merging.weights import Weights, backbone_files


class Changes(Protocol):
    """What an expert changes of its base."""

    @property
    def names(self) -> Collection[str]:
        """The names of the weights that may be changed, in the loaded model."""

    def delta(self, name: str, base: Tensor) -> Tensor | None:
        """Returns in fp32 what is added to this weight of the base; None where it stays as it is."""


class Checkpoint:
    """A whole model that was tuned in all its weights."""

    def __init__(self, folder: Path, names: Mapping[str, str]) -> None:
        self._weights = Weights(folder)
        self._file_names = names

    @property
    def names(self) -> Collection[str]:
        """The names of all weights: any of them may be changed."""
        return [name for name, file_name in self._file_names.items() if file_name in self._weights.names]

    def delta(self, name: str, base: Tensor) -> Tensor | None:
        """Returns the difference to the base; None where there is none."""
        own = self._weights.read(self._file_names[name])
        return None if torch.equal(own, base) else own.to(torch.float32) - base.to(torch.float32)

    def refuse_another_architecture(self, base: Weights) -> None:
        """Fails with a ConfigurationError unless it has the base's weights, each in its shape."""
        folder, own = self._weights.folder, self._weights
        if different := sorted(set(own.names) ^ set(base.names)):
            raise ConfigurationError(
                f"{folder} is no model of this base: only one of both has {', '.join(different[:3])}"
            )
        for name in base.names:
            if own.shape(name) != base.shape(name):
                shapes = f"{own.shape(name)} there, and {base.shape(name)} in the base"
                raise ConfigurationError(f"{folder} is no model of this base: {name} is {shapes}")


@dataclass(frozen=True)
class Expert:
    """A model that learnt a specialty. `department` names it, where its merit is to be measured."""

    folder: Path
    manifest: Manifest
    changes: Changes
    head: Head
    department: str | None = None

    @property
    def name(self) -> str:
        """Its department, or else the name of its folder."""
        return self.department or self.folder.resolve().name


def open_base(folder: Path) -> tuple[Weights, dict[str, str]]:
    """Returns the base's weights, and their names in its files by their names in the loaded model.

    Fails with a ConfigurationError for a base that has an adapter beside it: it is not what its files say.
    """
    if has_adapter(folder):
        raise ConfigurationError(f"{folder} has an adapter beside its weights: name the plain base as --base")
    weights = Weights(folder)
    return weights, file_names(folder, weights.names)


def open_expert(folder: Path, base: Weights, names: Mapping[str, str], department: str | None) -> Expert:
    """Returns the expert in the folder: an adapter, with or without its base beside it, or a whole checkpoint.

    Fails with a ConfigurationError for one that has no manifest or no head, or is of another base.
    """
    if not (folder / MANIFEST_FILE).is_file():
        how = "`medreward models adopt` writes one for a whole checkpoint"
        raise ConfigurationError(f"{folder} has no {MANIFEST_FILE}, which says how its logits are scaled: {how}")
    manifest = read_manifest(folder / MANIFEST_FILE)
    if manifest.vlm is None or manifest.vlm.head is None:
        raise ConfigurationError(f"{folder} has no head: only vision-language models with a head can be merged")
    changes = _changes(folder, manifest, base, names)
    width = AutoConfig.from_pretrained(base.folder, local_files_only=True).get_text_config().hidden_size
    head = TrainedHeads(folder / manifest.vlm.head, width, len(manifest.dimensions), torch.device("cpu")).weights
    return Expert(folder, manifest, changes, head, department)


def _changes(folder: Path, manifest: Manifest, base: Weights, names: Mapping[str, str]) -> Changes:
    if not has_adapter(folder):
        checkpoint = Checkpoint(folder, names)
        checkpoint.refuse_another_architecture(base)
        return checkpoint
    own = {path.name for path in backbone_files(folder)} | (base.shards.keys() & manifest.files.keys())
    digests = base.digests() if own else {}
    for name in sorted(own | digests.keys() if own else ()):
        if manifest.files.get(name) != digests.get(name):
            raise ConfigurationError(f"{folder} was trained on another base: its {name} is not that of {base.folder}")
    adapter = Lora(folder)
    if strange := sorted(set(adapter.names) - names.keys()):
        raise ConfigurationError(f"the adapter in {folder} is of another base, which has no {', '.join(strange[:3])}")
    return adapter
