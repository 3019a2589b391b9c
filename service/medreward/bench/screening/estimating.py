"""Rates in production from few labels and many scores, by prediction-powered inference.

Labelled answers must be a random sample of the stream that the unlabelled ones come from. The model's own doubt stands
in where there is no label, and the labels correct it: the estimate is right however wrong the doubt is, and the better
the doubt tells wrong answers, the narrower the interval. The doubt has the weight that gives the least variance
(Angelopoulos and others, PPI++). Intervals rest on the normal approximation, over images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from medreward.bench.screening.answers import Answer, images_of
from medreward.bench.statistics import Floats, Groups, Interval
from medreward.errors import ConfigurationError
from medreward.screening.deciding import Decider
from medreward.screening.policy import Policy
from medreward.types import DIMENSIONS, Scored, Verdict

#: With fewer the normal approximation says nothing.
FEWEST_IMAGES: Final = 30


@dataclass(frozen=True, slots=True)
class Sample:
    """Answers in columns: whether allowed, the doubt from 0 to 1, and for labelled ones whether wrong."""

    allowed: Floats
    doubt: Floats
    images: Groups
    wrong: Floats

    def those(self, which: np.typing.NDArray[Any]) -> "Sample":
        """Returns the answers at these places, or those that a mask names."""
        return replace(self, **{name: getattr(self, name)[which] for name in ("allowed", "doubt", "images", "wrong")})


@dataclass(frozen=True, slots=True)
class Estimate:
    """A rate with its interval, and the rate and interval that the labels alone give."""

    value: float
    interval: Interval
    by_labels: float
    by_labels_interval: Interval
    weight: float  # of the doubt; 0 where it does not help


def sample_of(answers: Sequence[Answer], policy: Policy) -> Sample:
    """Returns the answers as columns. What has no score is not allowed, and in full doubt."""
    decider = Decider(policy, None)
    verdicts = [decider.decide(one.result, one.response, one.department).verdict for one in answers]
    dimension = next((rule.dimension for rule in policy.rules if rule.verdict is Verdict.ALLOW), None) or "overall"
    place = DIMENSIONS.index(dimension)
    scores = [answer.result.scores[place] if isinstance(answer.result, Scored) else None for answer in answers]
    return Sample(
        np.array([verdict is Verdict.ALLOW for verdict in verdicts], dtype=np.float64),
        np.array([1.0 if score is None else 1 - score for score in scores]),
        images_of(answers),
        np.array([not answer.right for answer in answers], dtype=np.float64),
    )


def false_allow(labelled: Sample, unlabelled: Sample) -> Estimate | None:
    """Returns which share of wrong answers is allowed; None where no answer is labelled wrong.

    Raises ConfigurationError for labels of too few images.
    """
    _refuse_few(labelled)
    if not labelled.wrong.any():
        return None
    first = float(labelled.allowed[labelled.wrong > 0].mean())
    here, there = ((sample.allowed - first) / labelled.wrong.mean() for sample in (labelled, unlabelled))
    return _estimate(
        first, labelled.wrong * here, (labelled, labelled.doubt * here), (unlabelled, unlabelled.doubt * there)
    )


def wrong_among_allowed(labelled: Sample, unlabelled: Sample) -> Estimate | None:
    """Returns which share of allowed answers is wrong; None where none is allowed.

    Raises ConfigurationError for labels of too few images.
    """
    _refuse_few(labelled)
    here, there = (sample.those(sample.allowed > 0) for sample in (labelled, unlabelled))
    if not len(here.wrong) or not len(there.doubt):
        return None
    return _estimate(float(here.wrong.mean()), here.wrong, (here, here.doubt), (there, there.doubt))


def _refuse_few(labelled: Sample) -> None:
    images = len(np.unique(labelled.images))
    if images < FEWEST_IMAGES:
        raise ConfigurationError(
            f"an estimate with --unlabelled needs labels about {FEWEST_IMAGES} images or more, and there are {images}"
        )


def _estimate(first: float, losses: Floats, here: tuple[Sample, Floats], there: tuple[Sample, Floats]) -> Estimate:
    """Returns the estimate that the labels alone give, moved by what the doubt says of the unlabelled answers."""
    (labelled, doubt), (unlabelled, doubt_there) = here, there
    spread, spread_there = _covariance(doubt, doubt, labelled.images), _variance(doubt_there, unlabelled.images)
    together = _covariance(losses, doubt, labelled.images)
    weight = float(np.clip(together / (spread + spread_there), 0, 1)) if spread + spread_there > 0 else 0.0
    value = first + weight * float(doubt_there.mean() - doubt.mean())
    variance = _variance(losses - weight * doubt, labelled.images) + weight**2 * spread_there
    alone = _variance(losses, labelled.images)
    return Estimate(value, _within(value, variance), first, _within(first, alone), weight)


def _variance(values: Floats, images: Groups) -> float:
    return _covariance(values, values, images)


def _covariance(first: Floats, second: Floats, images: Groups) -> float:
    """Returns the covariance of two means over answers, where answers about one image move together."""
    _, numbers = np.unique(images, return_inverse=True)
    count = int(numbers.max()) + 1
    one, two = (np.bincount(numbers, weights=values - values.mean()) for values in (first, second))
    return float(one @ two) / len(first) ** 2 * count / max(count - 1, 1)


def _within(value: float, variance: float) -> Interval:
    half = NormalDist().inv_cdf(0.975) * float(np.sqrt(variance))
    return max(0.0, value - half), min(1.0, value + half)
