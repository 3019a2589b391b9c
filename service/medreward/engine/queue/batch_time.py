"""Learns from the batches that ran how long a batch takes."""

import math
from typing import Final

MEMORY: Final = 0.98  # weight of a batch, relative to the one after it


class BatchTime:
    """Fits seconds = fixed + per_cost x cost by least squares in which old batches fade."""

    def __init__(self) -> None:
        self.fixed = 0.0
        self.per_cost = 0.0
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def cost_within(self, seconds: float) -> float:
        """Returns the cost of a batch that takes this long. A batch always takes its fixed time; one that is to be
        shorter gets as much work as takes that time again, for smaller ones would hardly be shorter."""
        rate = self.per_cost or (self._y / self._x if self._x else 0.0)
        return max(seconds - self.fixed, self.fixed) / rate if rate else math.inf

    def learn(self, cost: int, seconds: float) -> None:
        """Takes a batch of this cost, which took so many seconds, into account."""
        self._n = self._n * MEMORY + 1
        self._x = self._x * MEMORY + cost
        self._y = self._y * MEMORY + seconds
        self._xx = self._xx * MEMORY + cost * cost
        self._xy = self._xy * MEMORY + cost * seconds
        spread = self._n * self._xx - self._x * self._x
        slope = (self._n * self._xy - self._x * self._y) / spread if spread > 1e-9 * self._n * self._xx else 0.0
        mean_x, mean_y = self._x / self._n, self._y / self._n
        # Neither part can be negative: noise among batches of like cost must not promise time travel.
        self.per_cost = min(max(slope, 0.0), mean_y / mean_x if mean_x else 0.0)
        self.fixed = max(mean_y - self.per_cost * mean_x, 0.0)
