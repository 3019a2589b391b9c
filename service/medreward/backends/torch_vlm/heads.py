"""From a hidden state to the six logits of each head of an ensemble, in fp32."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS


class LinearHeads:
    """`weight` [heads, 6, width] and `bias` [heads, 6], or without the first axis for a single head."""

    def __init__(self, path: Path, width: int, device: str) -> None:
        weights = _read(path, {"weight", "bias"})
        self._weight = weights["weight"].reshape(-1, *weights["weight"].shape[-2:]).to(device)
        self._bias = weights["bias"].reshape(-1, weights["bias"].shape[-1]).to(device)
        if self._weight.shape[1:] != (len(DIMENSIONS), width) or self._bias.shape != self._weight.shape[:2]:
            raise ConfigurationError(f"{path} is no head of {len(DIMENSIONS)} dimensions over {width} features")

    def __call__(self, hidden: Tensor) -> Tensor:
        """Answers, heads, dimensions."""
        return torch.einsum("nw,hdw->nhd", hidden, self._weight) + self._bias


def _read(path: Path, names: set[str]) -> dict[str, Tensor]:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"no head at {path}: {error}") from None
    if weights.keys() != names:
        raise ConfigurationError(f"{path} must hold {', '.join(sorted(names))}, and holds {', '.join(sorted(weights))}")
    return {name: weight.float() for name, weight in weights.items()}
