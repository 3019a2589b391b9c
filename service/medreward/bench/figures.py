"""Every accuracy that a table or a page shows, with its counts and its interval, computed in one place."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from medreward.bench.sheet import Column
from medreward.bench.statistics import Floats, Interval
from medreward.bench.statistics.accuracy import by_length, by_position, design_effect, grouped_wilson
from medreward.intervals import Z

DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Figure:
    """An accuracy with its 95% interval, and the counts behind it.

    Accuracy and interval are None where nothing was measured: without a case, or where the model has no such dimension.
    """

    accuracy: float | None
    low: float | None
    high: float | None
    n: int
    correct: int
    ties: int
    unanswered: int

    @classmethod
    def of(cls, column: Column, accuracy: float | None = None, interval: Interval | None = None) -> Self:
        """Returns the figure with the counts of these cases."""
        low, high = interval or (None, None)
        return cls(
            accuracy=accuracy,
            low=None if low is None else max(0.0, low),
            high=None if high is None else min(1.0, high),
            n=len(column),
            correct=int((column.credits == 1).sum()),
            ties=int((column.choices == 0).sum()),
            unanswered=int(np.isnan(column.choices).sum()),
        )

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Returns the figure that `json` wrote."""
        low, high = row["ci95"] or (None, None)
        return cls(row["accuracy"], low, high, row["n"], row["correct"], row["ties"], row["unanswered"])

    def json(self) -> dict[str, Any]:
        """Returns the figure as summary.json and `bench compare --json` hold it."""
        return {
            "accuracy": rounded(self.accuracy),
            "ci95": None if self.low is None else [rounded(self.low), rounded(self.high)],
            "n": self.n,
            "correct": self.correct,
            "ties": self.ties,
            "unanswered": self.unanswered,
        }


def micro(column: Column) -> Figure:
    """Returns the accuracy with every case weighing the same."""
    credit = column.credits
    if not len(credit):
        return Figure.of(column)
    return Figure.of(column, float(credit.mean()), grouped_wilson(credit, column.images))


def macro(column: Column) -> Figure:
    """Returns the accuracy with every organ weighing the same.

    To each organ's share, two right and two wrong cases are added for its variance alone: without them an organ with
    every case right would have none.
    """
    organs = [column.inside(column.organs == organ) for organ in np.unique(column.organs)]
    if not organs:
        return Figure.of(column)
    variance = 0.0
    for organ in organs:
        n = len(organ)
        share = (organ.credits.sum() + 2) / (n + 4)
        variance += float(share * (1 - share) / n * design_effect(organ.credits, organ.images))
    accuracy = float(np.mean([organ.credits.mean() for organ in organs]))
    half = Z * math.sqrt(variance) / len(organs)
    return Figure.of(column, accuracy, (accuracy - half, accuracy + half))


def shortcuts(column: Column) -> dict[str, Floats]:
    """Returns the credits of what needs no understanding: taking an answer by its length, or by its position."""
    return {"length": by_length(column.labels, column.lengths), "position": by_position(column.labels)}


def shortcut_accuracies(column: Column) -> dict[str, float | None]:
    """Returns what each shortcut reaches on these cases; None without a case."""
    if not len(column):
        return {"length": None, "position": None}
    return {name: rounded(credit.mean()) for name, credit in shortcuts(column).items()}


def bounds(interval: Interval | None) -> list[float | None] | None:
    """Returns an interval as JSON can hold it."""
    return None if interval is None else [rounded(bound) for bound in interval]


def rounded(value: float | np.floating[Any] | None) -> float | None:
    """Returns None for what JSON cannot hold."""
    return round(float(value), DIGITS) if value is not None and math.isfinite(value) else None
