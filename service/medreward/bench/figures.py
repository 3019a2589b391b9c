"""Every accuracy that a table or a page shows, with its counts and its interval, computed in one place."""

import math
from typing import Any, Final

import numpy as np

from medreward.bench.finished import Measured
from medreward.bench.statistics import Floats, Interval
from medreward.bench.statistics.accuracy import design_effect, grouped_wilson
from medreward.bench.statistics.shortcuts import by_length, by_position
from medreward.intervals import Z

DIGITS: Final = 6


def micro(measured: Measured) -> dict[str, Any]:
    """Returns the accuracy with every case weighing the same; accuracy and interval are None without a case."""
    credit = measured.credits
    if not len(credit):
        return row(None, None, measured)
    return row(float(credit.mean()), grouped_wilson(credit, measured.images), measured)


def macro(measured: Measured) -> dict[str, Any]:
    """Returns the accuracy with every organ weighing the same; accuracy and interval are None without a case."""
    organs = [measured.inside(measured.organs == organ) for organ in np.unique(measured.organs)]
    if not organs:
        return row(None, None, measured)
    accuracy = float(np.mean([organ.credits.mean() for organ in organs]))
    half = Z * math.sqrt(sum(_variance(organ) for organ in organs)) / len(organs)
    return row(accuracy, (accuracy - half, accuracy + half), measured)


def row(accuracy: float | None, ci95: Interval | None, measured: Measured) -> dict[str, Any]:
    """Returns the figure as summary.json holds it, with the counts of these cases."""
    return {
        "accuracy": rounded(accuracy),
        "ci95": None if ci95 is None else [rounded(max(0.0, ci95[0])), rounded(min(1.0, ci95[1]))],
        "n": len(measured.labels),
        "correct": int((measured.credits == 1).sum()),
        "ties": int((measured.choices == 0).sum()),
        "unanswered": int(np.isnan(measured.choices).sum()),
    }


def shortcuts(measured: Measured) -> dict[str, Floats]:
    """Returns the credits of what needs no understanding: taking an answer by its length, or by its position."""
    return {"length": by_length(measured.labels, measured.lengths), "position": by_position(measured.labels)}


def shortcut_accuracies(measured: Measured) -> dict[str, float | None]:
    """Returns what each shortcut reaches on these cases; None without a case."""
    if not len(measured.labels):
        return {"length": None, "position": None}
    return {name: rounded(credit.mean()) for name, credit in shortcuts(measured).items()}


def bounds(interval: Interval | None) -> list[float | None] | None:
    """Returns an interval as JSON can hold it."""
    return None if interval is None else [rounded(bound) for bound in interval]


def rounded(value: float | np.floating[Any] | None) -> float | None:
    """Returns None for what JSON cannot hold."""
    return round(float(value), DIGITS) if value is not None and math.isfinite(value) else None


def _variance(organ: Measured) -> float:
    """Returns the variance of one organ's accuracy.

    Two right and two wrong cases are added to its share, or an organ with every case right would have none.
    """
    n = len(organ.labels)
    share = (organ.credits.sum() + 2) / (n + 4)
    return float(share * (1 - share) / n * design_effect(organ.credits, organ.images))
