"""The heads of a reward model: they turn a hidden state into logits, one for each dimension of the model, in fp32."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medreward.errors import ConfigurationError

SCORE: Final = "score."  # how transformers' sequence classifiers name their head, among the backbone's own weights
ADAPTED: Final = f"base_model.model.{SCORE}"  # the same in an adapter, where peft saves what was trained beside it
VALUE: Final = ("v_head.summary.", "summary.")  # how trl's value head is saved, from its model or on its own


def score_among(names: Collection[str]) -> str | None:
    """Returns what the names of a classifier's head begin with among these weights, or None if there is no such
    head.
    """
    return next((prefix for prefix in (SCORE, ADAPTED) if f"{prefix}weight" in names), None)


class Heads(Protocol):
    """What turns the last hidden states of answers into logits."""

    @property
    def tails(self) -> Sequence[Sequence[int]]:
        """Token ids that follow each answer, which is read at the end of each. Without any it is read at its last
        token.
        """

    def to(self, device: str) -> None:
        """Moves the weights to a device."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """Takes states by answer, tail and width; returns logits by answer, head and dimension."""


class TrainedHeads:
    """Heads that a file holds; opening fails with a ConfigurationError for a file that does not fit the model.

    Linear: `weight` [heads, dimensions, width] and `bias` [heads, dimensions]. Two layers with a SiLU between them:
    `inner.weight` [heads, inner, width] and `inner.bias` [heads, inner] before, over which `weight` and `bias` then go.
    A single head may leave the first axis out. A head named `score`, a classifier's, needs no bias. A value head is
    linear: `v_head.summary.weight` [1, width] and `v_head.summary.bias` [1].
    """

    tails: Sequence[Sequence[int]] = ()

    def __init__(self, path: Path, width: int, dimensions: int, device: torch.device) -> None:
        weights = _read(path)
        self._inner = "inner.weight" in weights
        axes = {"weight": 3, "bias": 2, "inner.weight": 3, "inner.bias": 2}
        named = {n: w if w.dim() == axes[n] else w[None] for n, w in weights.items()}
        heads, inner = len(named["weight"]), named["inner.weight"].shape[1] if self._inner else width
        wanted = {
            "weight": (heads, dimensions, inner),
            "bias": (heads, dimensions),
            "inner.weight": (heads, inner, width),
            "inner.bias": (heads, inner),
        }
        for name, tensor in named.items():
            if tensor.shape != wanted[name]:
                shape, right = [*tensor.shape], [*wanted[name]]
                raise ConfigurationError(f"{path}: {name} is {shape}, and must be {right} for this backbone")
        self._weights = {name: tensor.to(device) for name, tensor in named.items()}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The tensors by the names above, each with its first axis."""
        return dict(self._weights)

    def to(self, device: str) -> None:
        self._weights = {name: weight.to(device) for name, weight in self._weights.items()}

    def __call__(self, hidden: Tensor) -> Tensor:
        hidden, w = hidden[:, 0], self._weights
        if self._inner:
            inside = torch.nn.functional.silu(torch.einsum("nw,hiw->nhi", hidden, w["inner.weight"]) + w["inner.bias"])
            return torch.einsum("nhi,hdi->nhd", inside, w["weight"]) + w["bias"]
        return torch.einsum("nw,hdw->nhd", hidden, w["weight"]) + w["bias"]


def _read(path: Path) -> dict[str, Tensor]:
    """Returns the weights of a head under our names; fails where the file holds none, or more than one."""
    try:
        with safe_open(path, "pt") as file:
            keys = sorted(file.keys())
            score = score_among(keys) or SCORE
            names = {name.removeprefix(score): name for name in keys if name.startswith(score)}
            value = next((prefix for prefix in VALUE if f"{prefix}weight" in keys), "")
            names = names or {name.removeprefix(value): name for name in keys}
            weights = {short: file.get_tensor(name).float() for short, name in names.items()} if len(names) < 5 else {}
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"no head at {path}: {error}") from None
    if set(weights) == {"weight"} and not value:
        weights["bias"] = torch.zeros(weights["weight"].shape[:-1])
    linear = {"weight", "bias"}
    if set(weights) not in ((linear,) if value else (linear, linear | {"inner.weight", "inner.bias"})):
        names_there = f"{', '.join(keys[:5])}{' and others' if len(keys) > 5 else ''}"
        raise ConfigurationError(
            f"{path} holds no head: neither weight and bias, {SCORE}weight, nor {VALUE[0]}weight and bias alone; "
            f"it has {names_there}"
        )
    return weights
