"""Samples of answers for tests of drift, from a seed."""

import math
from collections.abc import Iterator
from random import Random

from medreward.screening.samples import Sample
from medreward.types import Flag

SPREAD = 1.5  # standard deviation of a score's log odds


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def stationary(random: Random, shift: float = 0.0, out_of_scope: float = 0.03) -> Iterator[Sample]:
    """Gives samples without end: six scores that hang together, now and then a flag, and a verdict by the first score.
    `shift` moves the first score, in standard deviations."""
    while True:
        common = random.gauss(0, 1)
        odds = [SPREAD * (0.6 * common + 0.8 * random.gauss(0, 1)) for _ in range(6)]
        odds[0] += SPREAD * shift
        flags = (Flag.OUT_OF_SCOPE,) if random.random() < out_of_scope else ()
        verdict = "allow" if odds[0] > 1 else "block" if odds[0] < -2 else "review"
        yield Sample(tuple(map(sigmoid, odds)), flags, verdict, ("strict", "sha256:1"))
