"""Chance that is the same on every machine: it uses the raw words of PCG64, which numpy promises never to change."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Dice:
    """Draws the same values for the same seed, in the order of the calls."""

    def __init__(self, *seed: int | str) -> None:
        word = hashlib.sha256(repr(seed).encode()).digest()[:16]
        self._words = np.random.PCG64(int.from_bytes(word, "little"))

    def below(self, count: int) -> int:
        return int(self._words.random_raw()) % count

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.below(1 << 20) / (1 << 20)

    def chance(self, probability: float) -> bool:
        return self.below(1 << 20) < probability * (1 << 20)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def shuffled(self, choices: Sequence[T]) -> list[T]:
        rest = list(choices)
        return [rest.pop(self.below(len(rest))) for _ in choices]

    def grain(self, height: int, width: int) -> NDArray[np.float32]:
        """Returns independent values between -1 and 1, most of them near 0."""
        words: NDArray[np.uint64] = self._words.random_raw(-(-height * width // 4))
        halves = words.astype("<u8").view(np.uint8)[: 2 * height * width].astype(np.int16)
        heap = halves[0::2] - halves[1::2]
        return (heap.astype(np.float32) / np.float32(255)).reshape(height, width)

    def clouds(self, height: int, width: int, cells: int) -> NDArray[np.float32]:
        """Returns smooth values between -1 and 1: a coarse grain, stretched."""
        coarse = self.grain(cells + 1, cells + 1)
        return _stretched(_stretched(coarse, height).T, width).T


def _stretched(rows: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Returns `length` rows, interpolated smoothly between the given ones."""
    where = np.arange(length, dtype=np.float32) * np.float32((len(rows) - 1) / length)
    first = where.astype(np.intp)
    part = (where - first).astype(np.float32)
    part = (part * part * (3 - 2 * part))[:, None]
    stretched: NDArray[np.float32] = rows[first] * (1 - part) + rows[first + 1] * part
    return stretched
