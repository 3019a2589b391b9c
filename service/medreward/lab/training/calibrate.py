"""What makes logits mean what they say: a temperature for each dimension, and the level that scores start from."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from medreward.artifacts.manifest import Calibration
from medreward.lab.training.corpus import DevPair
from medreward.lab.training.evaluate import DevLogits, ahead_by, report
from medreward.lab.training.figures import reliability
from medreward.types import DIMENSIONS

MEASURED: Final = "measured.json"
TEMPERATURES: Final = np.geomspace(0.1, 10.0, 201)
FEWEST: Final = 50  # pairs to tell anything of a dimension


class Measured(BaseModel):
    """Holds what a run's dev pairs say about its logits; it is kept beside the weights."""

    temperatures: dict[str, float]  # to divide each dimension's logits by
    levels: dict[str, Calibration]
    calibration_error: dict[str, float]
    tables: dict[str, Any]


NOT_MEASURED: Final = Measured(
    temperatures=dict.fromkeys(DIMENSIONS, 1.0),
    levels=dict.fromkeys(DIMENSIONS, Calibration(median=0.0, scale=1.0)),
    calibration_error={},
    tables={},
)


def measured(pairs: Sequence[DevPair], logits: DevLogits) -> Measured:
    divide = temperatures(pairs, logits)
    return Measured(
        temperatures=dict(zip(DIMENSIONS, divide.tolist(), strict=True)),
        levels=levels(logits, divide),
        calibration_error=calibration_error(pairs, logits),
        tables=report(pairs, logits),
    )


def temperatures(pairs: Sequence[DevPair], logits: DevLogits) -> NDArray[np.float64]:
    """What to divide each dimension's logits by, so that sigmoid of a difference is the share of pairs won.

    A dimension without enough pairs takes that of `overall`.
    """
    ahead = {name: _ahead(pairs, logits, name) for name in DIMENSIONS}
    fitted = {name: fit_temperature(values) for name, values in ahead.items() if len(values) >= FEWEST}
    rest = fitted.get("overall", 1.0)
    return np.array([fitted.get(name, rest) for name in DIMENSIONS])


def calibration_error(pairs: Sequence[DevPair], logits: DevLogits) -> dict[str, float]:
    """Returns each dimension's calibration error of the win rates, on images that were not fitted on."""
    found = {}
    for name in DIMENSIONS:
        ahead = _ahead(pairs, logits, name)
        if len(ahead) >= FEWEST:
            images = [pair.image for pair in pairs if name in pair.dimensions]
            found[name] = float(reliability(across_halves(ahead, images))["error"])
    return found


def across_halves(ahead: NDArray[np.float64], images: Sequence[str]) -> NDArray[np.float64]:
    """Returns each half of the images at the temperature that the other half asks for."""
    names, place = np.unique(images, return_inverse=True)
    first = np.random.default_rng(0).permutation(len(names))[place] % 2 == 0
    found = ahead.copy()
    for half in (first, ~first):
        if not half.all():  # a single image has nothing to be held against
            found[half] /= fit_temperature(ahead[~half])
    return found


def levels(logits: DevLogits, divide: NDArray[np.float64]) -> dict[str, Calibration]:
    """Returns levels at which the median answer scores 0.5, and scores spread like a logistic of unit scale."""
    pool = logits.seen.astype(np.float64).mean(2).reshape(-1, len(DIMENSIONS)) / divide
    spread = np.maximum(pool.std(0) * np.sqrt(3) / np.pi, 1e-3)
    medians = np.median(pool, 0)
    return {
        name: Calibration(median=round(float(medians[place]), 4), scale=round(float(spread[place]), 4))
        for place, name in enumerate(DIMENSIONS)
    }


def _ahead(pairs: Sequence[DevPair], logits: DevLogits, dimension: str) -> NDArray[np.float64]:
    told = [place for place, pair in enumerate(pairs) if dimension in pair.dimensions]
    return ahead_by(logits.seen)[told, DIMENSIONS.index(dimension)]


def fit_temperature(ahead: NDArray[np.float64]) -> float:
    """Returns what to divide logits by whose better answers are so far ahead, for the likeliest win rates.

    One more pair is taken to be lost, by as much as the others are ahead in the middle: where all are won, the larger
    the logits the likelier they are, and each model that goes on from another would have them ten times as large.
    """
    ahead = np.append(ahead, -np.median(np.abs(ahead)))
    losses = [np.logaddexp(0.0, -ahead / temperature).mean() for temperature in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])
