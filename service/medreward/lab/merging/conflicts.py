"""How far experts contradict each other: counted for each weight, added up for each layer."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final

import torch
from torch import Tensor

from medreward.lab.merging.methods import Resolved

LAYER: Final = re.compile(r"(.*?\.\d+)\..+")  # up to the first number in a name


@dataclass
class Conflict:
    """Counts over the numbers of one or more weights. `products` are of pairs of experts, by their places."""

    changed: int = 0  # numbers that an expert changes, counted for each expert
    counted: int = 0  # of these, how many count in the merge
    shared: int = 0  # numbers that two or more experts change
    opposed: int = 0  # of these, how many are changed in both directions
    products: dict[tuple[int, int], float] = field(default_factory=dict)
    squares: dict[int, float] = field(default_factory=dict)

    @property
    def sign_disagreement(self) -> float | None:
        """The share of the shared numbers that experts change in both directions; None where none is shared."""
        return self.opposed / self.shared if self.shared else None

    @property
    def pruned(self) -> float | None:
        """The share of all changes that do not count in the merge; None where nothing is changed."""
        return 1 - self.counted / self.changed if self.changed else None

    def cosine(self, first: int, second: int) -> float | None:
        """Returns the cosine between two experts' changes; None where one of them changes nothing."""
        norms = self.squares.get(first, 0.0) * self.squares.get(second, 0.0)
        return self.products.get((first, second), 0.0) / norms**0.5 if norms else None

    def add(self, other: "Conflict") -> None:
        """Adds the counts of other weights."""
        self.changed += other.changed
        self.counted += other.counted
        self.shared += other.shared
        self.opposed += other.opposed
        for pair, product in other.products.items():
            self.products[pair] = self.products.get(pair, 0.0) + product
        for place, square in other.squares.items():
            self.squares[place] = self.squares.get(place, 0.0) + square

    def as_json(self, experts: Sequence[str]) -> dict[str, Any]:
        """Returns the shares and cosines, each pair of experts under `first|second`."""
        return {
            "changed": self.changed,
            "sign_disagreement": self.sign_disagreement,
            "pruned": self.pruned,
            "cosine": {
                f"{experts[a]}|{experts[b]}": self.cosine(a, b) for a, b in combinations(range(len(experts)), 2)
            },
        }


def conflict(deltas: Sequence[Tensor], resolved: Resolved) -> Conflict:
    """Returns what the experts' differences to one weight have in common, and what of them counts."""
    changes = [delta != 0 for delta in deltas]
    several = torch.stack(changes).sum(0) > 1
    up, down = (torch.stack([sign * delta > 0 for delta in deltas]).any(0) for sign in (1, -1))
    flat = [delta.flatten().double() for delta in deltas]
    return Conflict(
        changed=sum(int(change.sum()) for change in changes),
        counted=sum(int(mask.sum()) for mask in resolved.counted),
        shared=int(several.sum()),
        opposed=int((up & down).sum()),
        products={(a, b): float(flat[a] @ flat[b]) for a, b in combinations(range(len(flat)), 2)},
        squares={place: float(delta @ delta) for place, delta in enumerate(flat)},
    )


def by_layer(conflicts: Mapping[str, Conflict]) -> dict[str, Conflict]:
    """Returns the conflicts of each layer; a weight outside the numbered layers is a layer of its own module."""
    layers: dict[str, Conflict] = {}
    for name, one in conflicts.items():
        numbered = LAYER.fullmatch(name)
        layers.setdefault(numbered[1] if numbered else name.rpartition(".")[0], Conflict()).add(one)
    return layers


def whole(conflicts: Iterable[Conflict]) -> Conflict:
    """Returns the conflicts of all these weights together."""
    total = Conflict()
    for one in conflicts:
        total.add(one)
    return total
