"""What could be scored without understanding: a model that does not beat these has shown nothing."""

import numpy as np

from medreward.bench.statistics import Floats, Ints
from medreward.bench.statistics.accuracy import credits_of


def by_length(labels: Floats, lengths: Ints) -> Floats:
    """Credits of taking the longer answer, or the shorter one if that is right more often; lengths are cases x 2."""
    return _better(labels, np.sign(lengths[:, 0] - lengths[:, 1]).astype(np.float64))


def by_position(labels: Floats) -> Floats:
    """Credits of always taking A, or B if that is right more often."""
    return _better(labels, np.ones(len(labels)))


def _better(labels: Floats, choices: Floats) -> Floats:
    """Chosen on the very labels it is measured on, which favours the shortcut."""
    taken, other = credits_of(labels, choices), credits_of(labels, -choices)
    return taken if taken.mean() >= other.mean() else other
