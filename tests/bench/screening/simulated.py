"""Labelled answers with simulated scores, whose rates are known exactly."""

from statistics import NormalDist

import numpy as np

from medreward.bench.screening.answers import Answer
from medreward.bench.screening.wish import Wish
from medreward.types import Flag, Scored, Six

FINGERPRINT = f"sha256:{'a' * 64}"
DATA = f"sha256:{'b' * 64}"
APART = 2.0  # standard deviations between right and wrong answers


def wish(**given: object) -> Wish:
    return Wish(**{"name": "strict", "version": "1", "fingerprint": FINGERPRINT, "data": DATA, **given})  # type: ignore[arg-type]


def answer(
    logit: float,
    right: bool,
    image: str,
    number: int = 0,
    *,
    department: str = "",
    organ: str = "",
    doubt: float = 0.5,
    relevance: float = 0.0,
    flags: tuple[Flag, ...] = (),
) -> Answer:
    """Returns an answer with this logit of accuracy."""
    logits: Six = (logit, relevance, 0.0, 0.0, 0.0, logit)
    scores: Six = (float(1 / (1 + np.exp(-logit))),) * 6
    result = Scored(0, 0, logits, scores, (doubt,) * 6, logit, flags)
    return Answer(right, image, "Why?", f"{image} {right} {number}", result, department, organ, evidence="constructed")


def simulated(images: int, seed: int, *, largest: int = 8, department: str = "") -> list[Answer]:
    """Returns right and wrong answers about so many images; images differ, and some have many answers.

    An answer's logit is its image's part and its own, of equal variance, which add up to a variance of 1.
    """
    rng = np.random.default_rng(seed)
    answers = []
    for image in range(images):
        common = rng.normal(0, np.sqrt(0.5))
        for number in range(int(rng.integers(1, largest + 1))):
            for right in (True, False):
                logit = common + rng.normal(0, np.sqrt(0.5)) + (APART if right else 0.0)
                answers.append(answer(logit, right, f"{seed}-{image}", number, department=department))
    return answers


def true_rate(threshold: float, right: bool = False) -> float:
    """Returns the share of all answers that have a logit from the threshold on."""
    return 1 - NormalDist().cdf(threshold - (APART if right else 0.0))
