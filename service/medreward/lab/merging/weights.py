"""The weights of a checkpoint on disk, read one at a time."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medreward.artifacts.repository import sha256_of
from medreward.backends.torch_vlm.adapter import WEIGHTS as ADAPTER
from medreward.backends.torch_vlm.adopt import HEAD, VALUE_HEAD
from medreward.backends.torch_vlm.heads import SCORE
from medreward.errors import ConfigurationError


class Weights:
    """The backbone in a folder's safetensors files. Heads and adapters are no part of it.

    Opening fails with a ConfigurationError for a folder without weights, or with a file that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._shards: dict[str, list[str]] = {}
        self._of: dict[str, str] = {}
        for path in backbone_files(folder):
            try:
                file: Any = safe_open(path, "pt")
            except (OSError, SafetensorError) as error:
                raise ConfigurationError(f"{path} cannot be read: {error}") from None
            names = [name for name in list(file.keys()) if not name.startswith(SCORE)]
            self._files[path.name] = file
            self._shards[path.name] = names
            self._of |= dict.fromkeys(names, path.name)
        if not self._of:
            raise ConfigurationError(f"{folder} has no weights in safetensors")

    @property
    def names(self) -> Collection[str]:
        """The names of all weights."""
        return self._of.keys()

    @property
    def shards(self) -> dict[str, list[str]]:
        """The names of the weights in each file."""
        return self._shards

    def shape(self, name: str) -> list[int]:
        """Returns the shape of a weight, which is not read."""
        return list(self._files[self._of[name]].get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """Returns a weight as the file holds it."""
        tensor: Tensor = self._files[self._of[name]].get_tensor(name)
        return tensor

    def digests(self) -> dict[str, str]:
        """Returns the sha256 of each file. It reads all of them."""
        return {name: sha256_of(self.folder / name) for name in self._shards}


def backbone_files(folder: Path) -> list[Path]:
    """Returns the files with the weights of the model itself, sorted."""
    return sorted(path for path in folder.glob("*.safetensors") if path.name not in (HEAD, VALUE_HEAD, ADAPTER))


def added(base: Tensor, delta: Tensor) -> Tensor:
    """Returns the weight with what was learnt, in the type that it is stored in."""
    return (base.to(torch.float32) + delta).to(base.dtype)
