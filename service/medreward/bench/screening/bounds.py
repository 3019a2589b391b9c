"""Exact bounds on a rate where answers about one image are not independent.

The rate is that of a wrong answer drawn from an image drawn at random. One answer drawn from each image gives
independent trials of just that rate, so that the binomial distribution is exact, whatever the model and the data.
Thresholds are tested from the strictest down (fixed-sequence testing of Learn then Test); as fewer answers pass a
stricter one, no correction for their number is needed, and the last one that passes is an order statistic.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import stats

from medreward.bench.screening.answers import Answer
from medreward.bench.statistics import Floats, Groups, Interval, Ints
from medreward.bench.statistics.accuracy import design_effect

#: How often one answer is drawn from each image. The strictest result counts: it holds as each single one does, and
#: does not hang on the luck of one draw.
DRAWS: Final = 5


def images_needed(at_most: float, confidence: float) -> int:
    """Returns from how many images on the bound can be shown at all, where none of the drawn answers passes."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - at_most))


def most_passing(images: int, at_most: float, confidence: float) -> int | None:
    """Returns how many of the drawn answers may pass for the bound to be shown; None where not even none suffices."""
    if images < images_needed(at_most, confidence):
        return None
    passing = np.arange(images + 1)
    shown = passing[stats.binom.cdf(passing, images, at_most) <= 1 - confidence]
    return int(shown[-1]) if len(shown) else None


def draws(answers: Sequence[Answer]) -> list[Ints]:
    """Returns, for each draw, the places of one answer of each image.

    Chance comes from a digest of what is asked and answered: the same labels always give the same policy.
    """
    drawn = []
    for number in range(DRAWS):
        first: dict[str, tuple[bytes, int]] = {}
        for place, answer in enumerate(answers):
            text = "\0".join((str(number), answer.image, answer.question, answer.response))
            lot = hashlib.sha256(text.encode("utf-8", "replace")).digest()
            first[answer.image] = min(first.get(answer.image, (lot, place)), (lot, place))
        drawn.append(np.array([place for _, place in first.values()], dtype=np.int64))
    return drawn


def cut(values: Floats, drawn: Sequence[Ints], at_most: float, confidence: float) -> float | None:
    """Returns the lowest number that the bound allows answers to pass by lying above it; None for too few images.

    A value of minus infinity is that of an answer that never passes.
    """
    cuts = []
    for places in drawn:
        passing = most_passing(len(places), at_most, confidence)
        if passing is None:
            return None
        cuts.append(float(np.sort(values[places])[::-1][passing]))
    return max(cuts)


def upper(passed: int, images: int, confidence: float) -> float:
    """Returns Clopper and Pearson's one-sided upper bound of a rate."""
    return 1.0 if passed >= images else float(stats.beta.ppf(confidence, passed + 1, images - passed))


def lower(passed: int, images: int, confidence: float) -> float:
    """Returns Clopper and Pearson's one-sided lower bound of a rate."""
    return 0.0 if not passed else float(stats.beta.ppf(1 - confidence, passed, images - passed + 1))


def grouped_interval(values: Floats, groups: Groups, level: float = 0.95) -> Interval | None:
    """Returns Clopper and Pearson's interval of a share, on the number of answers that would tell as much if none
    shared an image; None where there are no answers."""
    if not len(values):
        return None
    n = len(values) / design_effect(values, groups)
    k, tail = float(values.mean()) * n, (1 - level) / 2
    low = float(stats.beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high
