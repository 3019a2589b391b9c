"""Whether a reward model is right as often as its margins say."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit

from medreward.bench.statistics import Floats, Groups, Interval, Ints
from medreward.intervals import wilson

BINS: Final = 10
SIMULATED: Final = 1000
EDGES: Final = np.linspace(0.5, 1, BINS + 1)


@dataclass(frozen=True, slots=True)
class Bin:
    """Cases whose confidence lies in (low, high]; the first bin has its low end too."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    ci95: Interval


@dataclass(frozen=True, slots=True)
class Calibration:
    """Over the answered cases. A perfectly calibrated model has an ECE below `by_luck` 95 times in 100."""

    n: int
    ece: float
    by_luck: float
    brier: float
    log_loss: float
    bins: tuple[Bin, ...]


def calibration(labels: Floats, margins: Floats, seed: int = 0) -> Calibration | None:
    """Returns None if there is not one margin. `margins` are logits of A less B, NaN where there are none."""
    answered = np.isfinite(margins)
    labels, margins = labels[answered], margins[answered]
    if not len(labels):
        return None
    confidence = expit(np.abs(margins))
    credit = np.where(margins == 0, 0.5, (labels * margins > 0).astype(np.float64))
    wins = won(labels, margins)
    simulated = (np.random.default_rng(seed).random((SIMULATED, len(confidence))) < confidence).astype(np.float64)
    numbers = _bin_numbers(confidence)
    bins = []
    for number in np.unique(numbers):
        inside = numbers == number
        n, right = int(inside.sum()), float(credit[inside].sum())
        low, high, mean = float(EDGES[number]), float(EDGES[number + 1]), float(confidence[inside].mean())
        bins.append(Bin(low, high, n, mean, right / n, wilson(right, n)))
    return Calibration(
        n=len(labels),
        ece=float(calibration_errors(confidence, credit[None])[0]),
        by_luck=float(np.quantile(calibration_errors(confidence, simulated), 0.95)),
        brier=float(((1 - expit(wins)) ** 2).mean()),
        log_loss=float(np.logaddexp(0, -wins).mean()),
        bins=tuple(bins),
    )


def won(labels: Floats, margins: Floats) -> Floats:
    """Returns by how much the better answer wins, on the logit scale; below 0 it loses."""
    return labels * margins


def _bin_numbers(confidence: Floats) -> Ints:
    return np.clip(np.searchsorted(EDGES, confidence) - 1, 0, BINS - 1).astype(np.int64)


def calibration_errors(confidence: Floats, credit: Floats) -> Floats:
    """Returns for each row of credits the gaps between confidence and accuracy in the bins, weighed by their cases."""
    gaps = credit - confidence
    numbers = _bin_numbers(confidence)
    per_bin = np.stack([np.abs(gaps[:, numbers == number].sum(axis=1)) for number in range(BINS)])
    sums: Floats = per_bin.sum(axis=0) / len(confidence)
    return sums


def weighted_calibration_errors(margins: Floats, credit: Floats, groups: Groups, weights: Floats) -> Floats:
    """Returns the same for each row of weights, which are of groups: a group's cases count so many times."""
    answered = np.isfinite(margins)
    confidence, groups = expit(np.abs(margins[answered])), groups[answered]
    gaps, sizes = np.zeros((weights.shape[1], BINS)), np.zeros(weights.shape[1])
    np.add.at(gaps, (groups, _bin_numbers(confidence)), credit[answered] - confidence)
    np.add.at(sizes, groups, 1)
    errors: Floats = np.abs(weights @ gaps).sum(axis=1) / np.maximum(weights @ sizes, 1)
    return errors
