"""What makes logits mean what they say: a temperature for each dimension, and the level that scores start from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from medreward.training.corpus import DevPair
from medreward.training.evaluate import DevLogits, ahead_by
from medreward.types import DIMENSIONS

TEMPERATURES: Final = np.geomspace(0.1, 10.0, 201)
FEWEST: Final = 50  # pairs to fit a temperature on


@dataclass(frozen=True, slots=True)
class Levels:
    """score = sigmoid((logit - median) / scale)"""

    median: float
    scale: float


def temperatures(pairs: Sequence[DevPair], logits: DevLogits) -> NDArray[np.float64]:
    """What to divide each dimension's logits by, so that sigmoid of a difference is the share of pairs won.

    A dimension without enough pairs takes that of `overall`.
    """
    ahead = {name: _ahead(pairs, logits, name) for name in DIMENSIONS}
    fitted = {name: _fit(values) for name, values in ahead.items() if len(values) >= FEWEST}
    rest = fitted.get("overall", 1.0)
    return np.array([fitted.get(name, rest) for name in DIMENSIONS])


def calibration_error(pairs: Sequence[DevPair], logits: DevLogits, divide: NDArray[np.float64]) -> dict[str, float]:
    """Expected calibration error of the win rates in ten bins, for each dimension that pairs tell of."""
    found = {}
    for place, name in enumerate(DIMENSIONS):
        ahead = _ahead(pairs, logits, name) / divide[place]
        if len(ahead) < FEWEST:
            continue
        sure = 1 / (1 + np.exp(-np.abs(ahead)))
        bins = np.minimum(((sure - 0.5) * 20).astype(int), 9)
        gaps = [
            abs(float((ahead[bins == b] > 0).mean() - sure[bins == b].mean())) * float((bins == b).mean())
            for b in np.unique(bins)
        ]
        found[name] = float(sum(gaps))
    return found


def levels(logits: DevLogits, divide: NDArray[np.float64]) -> dict[str, Levels]:
    """The median answer of the dev pairs scores 0.5, and scores spread like a logistic of unit scale."""
    pool = logits.seen.astype(np.float64).mean(2).reshape(-1, len(DIMENSIONS)) / divide
    spread = np.maximum(pool.std(0) * np.sqrt(3) / np.pi, 1e-3)
    medians = np.median(pool, 0)
    return {
        name: Levels(round(float(medians[place]), 4), round(float(spread[place]), 4))
        for place, name in enumerate(DIMENSIONS)
    }


def _ahead(pairs: Sequence[DevPair], logits: DevLogits, dimension: str) -> NDArray[np.float64]:
    told = [place for place, pair in enumerate(pairs) if dimension in pair.dimensions]
    return ahead_by(logits.seen)[told, DIMENSIONS.index(dimension)]


def _fit(ahead: NDArray[np.float64]) -> float:
    losses = [np.logaddexp(0.0, -ahead / temperature).mean() for temperature in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])
