"""How the differences of several experts to one weight become one difference."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor


class Method(StrEnum):
    """linear: their mean. ties: the mean of those that agree in sign. dare_ties: the same, after dropping at random.

    ram: what one expert alone changes stays whole, what several change is averaged.
    """

    LINEAR = "linear"
    TIES = "ties"
    DARE_TIES = "dare_ties"
    RAM = "ram"


@dataclass(frozen=True, slots=True)
class How:
    """What decides a merge, beside the experts. `weights` are relative to each other, one for each expert."""

    method: Method
    weights: Sequence[float]
    density: float = 0.5  # the share of each difference that counts; linear takes all
    scale: float = 1.0  # of the merged difference
    seed: int = 0  # of what dare_ties drops


@dataclass(frozen=True, slots=True)
class Resolved:
    """The merged difference, and for each expert which numbers of its own count in it."""

    delta: Tensor
    counted: Sequence[Tensor]


def resolve(deltas: Sequence[Tensor], how: How, name: str) -> Resolved:
    """Returns the merged difference of one weight, whose name decides with the seed what is dropped at random.

    An expert of weight 0 does not count. Where one alone has a weight there is nothing to resolve: its difference comes
    back as it is.
    """
    if how.method is Method.LINEAR or sum(map(bool, how.weights)) == 1:
        kept = list(deltas)
        merged = sum((w / sum(how.weights) * d for w, d in zip(how.weights, deltas, strict=True) if w), torch.zeros(()))
    else:
        if how.method is Method.DARE_TIES:
            kept = [_dropped(delta, how, f"{name}/{i}") for i, delta in enumerate(deltas)]
        else:
            kept = [trimmed(delta, how.density) for delta in deltas]
        if how.method is not Method.RAM:
            kept = _agreeing(kept, how.weights)
        merged = _mean_of_changed(kept, how.weights)
    counted = [(delta != 0) & bool(how.weights[i]) for i, delta in enumerate(kept)]
    return Resolved(merged * how.scale if how.scale != 1 else merged, counted)


def trimmed(delta: Tensor, density: float) -> Tensor:
    """Returns the difference with its largest numbers alone: this share of them, the others are 0."""
    keep = math.ceil(density * delta.numel())
    if keep >= delta.numel():
        return delta
    sizes = delta.abs().flatten()
    smallest = sizes.kthvalue(delta.numel() - keep + 1).values
    return torch.where(delta.abs() >= smallest, delta, 0.0)


def _dropped(delta: Tensor, how: How, name: str) -> Tensor:
    """Returns the difference with this share of its numbers, chosen at random, and larger by what was dropped."""
    digest = hashlib.sha256(f"{how.seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    kept = torch.rand(delta.shape, generator=generator) < how.density
    return torch.where(kept, delta / how.density, 0.0)


def _agreeing(deltas: Sequence[Tensor], weights: Sequence[float]) -> list[Tensor]:
    """Returns of each difference the numbers whose sign is that of the sum by weight of all."""
    elected = sum((w * d for w, d in zip(weights, deltas, strict=True)), torch.zeros_like(deltas[0])).sign()
    return [torch.where(delta.sign() == elected, delta, 0.0) for delta in deltas]


def _mean_of_changed(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Returns at each place the mean by weight of the numbers that are not 0; 0 where all are."""
    total, weight = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta, w in zip(deltas, weights, strict=True):
        total += w * delta
        weight += w * (delta != 0)
    return torch.where(weight > 0, total / weight.clamp(min=1e-30), 0.0)
