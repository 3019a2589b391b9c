"""Whether one endpoint is slower than another, from measurements taken in turns."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from medreward.bench.gate import checks
from medreward.bench.gate.checks import Check
from medreward.bench.statistics import Floats


@dataclass(frozen=True)
class Rounds:
    """A figure of each round, the same rounds for both."""

    candidate: Floats
    baseline: Floats


def compared(name: str, figure: str, rounds: Rounds, max_ratio: float, alpha: float) -> Check:
    """Candidate over baseline: a paired t test on logarithms, so that what slows the whole machine slows both."""
    bounds = _mean(np.log(rounds.candidate / rounds.baseline), alpha)
    value, low, high = (math.exp(bound) for bound in bounds)
    what = f"{figure}: {value:.2f} times the baseline's ({low:.2f} to {high:.2f}); must be below {max_ratio:g}"
    return Check(name, checks.of(high < max_ratio, low > max_ratio), what, value, low, high, max_ratio)


def below(name: str, figure: str, rounds: Floats, limit: float, alpha: float) -> Check:
    value, low, high = _mean(rounds, alpha)
    what = f"{figure}: {value:.1f} ({low:.1f} to {high:.1f}); must be below {limit:g}"
    return Check(name, checks.of(high < limit, low > limit), what, value, low, high, limit)


def _mean(values: Floats, alpha: float) -> tuple[float, float, float]:
    """And its one-sided bounds."""
    seen = float(values.mean())
    if not np.ptp(values):
        return seen, seen, seen
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 2 * alpha)
    return seen, float(low), float(high)


def failed(failures: int, n: int, limit: float, alpha: float) -> Check:
    interval = stats.binomtest(failures, n).proportion_ci(1 - 2 * alpha, method="exact")
    low, high = float(interval.low), float(interval.high)
    what = f"{failures} of {n} requests had no right answer in time; fewer than {checks.percent(limit)} may"
    return Check("load/failed", checks.of(high < limit, low > limit), what, failures / n, low, high, limit, n)
