"""Whether a reward model is right as often as its margins say."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit

from medreward.bench.statistics import Floats, Interval
from medreward.intervals import wilson

BINS: Final = 10
SIMULATED: Final = 1000


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
    """Of the answered cases. `by_luck` is the ECE below which a perfectly calibrated model stays 95 times in 100."""

    n: int
    ece: float
    by_luck: float
    brier: float
    log_loss: float
    bins: tuple[Bin, ...]


def calibration(labels: Floats, margins: Floats, seed: int = 0) -> Calibration | None:
    """`margins` are logits of A less B, NaN where there are none; None if there is not one."""
    answered = np.isfinite(margins)
    labels, margins = labels[answered], margins[answered]
    if not len(labels):
        return None
    confidence = expit(np.abs(margins))
    credit = np.where(margins == 0, 0.5, (labels * margins > 0).astype(np.float64))
    wins = won(labels, margins)
    simulated = (np.random.default_rng(seed).random((SIMULATED, len(confidence))) < confidence).astype(np.float64)
    return Calibration(
        n=len(labels),
        ece=float(_ece(confidence, credit[None])[0]),
        by_luck=float(np.quantile(_ece(confidence, simulated), 0.95)),
        brier=float(((1 - expit(wins)) ** 2).mean()),
        log_loss=float(np.logaddexp(0, -wins).mean()),
        bins=tuple(_bins(confidence, credit)),
    )


def won(labels: Floats, margins: Floats) -> Floats:
    """By how much the better answer wins, on the logit scale; below 0 it loses."""
    return labels * margins


def _ece(confidence: Floats, credit: Floats) -> Floats:
    """Of each row of credits: the gaps between confidence and accuracy in the bins, weighed by their cases."""
    gaps = credit - confidence
    numbers = _numbers(confidence)
    per_bin = np.stack([np.abs(gaps[:, numbers == number].sum(axis=1)) for number in range(BINS)])
    sums: Floats = per_bin.sum(axis=0) / len(confidence)
    return sums


def _bins(confidence: Floats, credit: Floats) -> list[Bin]:
    numbers = _numbers(confidence)
    edges = np.linspace(0.5, 1, BINS + 1)
    bins = []
    for number in np.unique(numbers):
        inside = numbers == number
        n, right = int(inside.sum()), float(credit[inside].sum())
        bins.append(
            Bin(
                float(edges[number]),
                float(edges[number + 1]),
                n,
                float(confidence[inside].mean()),
                right / n,
                wilson(right, n),
            )
        )
    return bins


def _numbers(confidence: Floats) -> np.typing.NDArray[np.int64]:
    edges = np.linspace(0.5, 1, BINS + 1)
    return np.clip(np.searchsorted(edges, confidence) - 1, 0, BINS - 1).astype(np.int64)
