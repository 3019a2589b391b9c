"""Two runs on the same cases: who was better, by how much, and what this many cases could have shown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests

from medreward.bench.statistics import Floats, Groups, Interval
from medreward.bench.statistics.accuracy import design_effect

Alternative = Literal["two-sided", "greater", "less"]
Correction = Literal["holm", "bonferroni"]
#: Nearer to -1 and 1 a score statistic divides by nothing.
EDGE: Final = 1e-9
#: Numbers of discordant cases that are rarer than this are left out of a power.
NEVER: Final = 1e-9


@dataclass(frozen=True, slots=True)
class McNemar:
    """`better` and `worse` count the cases on which the first run has more credit, and less."""

    n: int
    better: int
    worse: int
    p: float

    @property
    def discordant(self) -> int:
        return self.better + self.worse


def mcnemar(first: Floats, second: Floats, alternative: Alternative = "two-sided") -> McNemar:
    """Returns McNemar's exact test, on any number of discordant cases. "less": that the first run is the worse one.

    A tie has half a credit: it is worse than a right answer and better than a wrong one.
    """
    better, worse = int((first > second).sum()), int((first < second).sum())
    p = stats.binomtest(better, better + worse, alternative=alternative).pvalue if better + worse else 1.0
    return McNemar(len(first), better, worse, float(p))


def adjusted(p: Sequence[float], method: Correction) -> list[float]:
    """Returns the p values, corrected for as many tests as there are."""
    return [float(value) for value in multipletests(p, method=method)[1]] if p else []


def odds_ratio(better: int, worse: int, level: float = 0.95) -> tuple[float | None, Interval]:
    """Returns the odds of discordant cases with the exact interval, whose bounds may be infinite; None without one."""
    if not better + worse:
        return None, (0.0, math.inf)
    interval = stats.binomtest(better, better + worse).proportion_ci(level, method="exact")
    shares = (better / (better + worse), interval.low, interval.high)
    ratio, low, high = (math.inf if share == 1 else float(share / (1 - share)) for share in shares)
    return ratio, (low, high)


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two accuracies, first less second, with its interval."""

    value: float
    low: float
    high: float
    n: int
    discordant: float  # share of cases, a tie against an answer counts half
    design_effect: float


def difference(first: Floats, second: Floats, groups: Groups, level: float = 0.95) -> Difference:
    """Returns the difference with Tango's score interval.

    It is on as many cases as would tell as much if none shared an image. Where ties are half credits it is somewhat too
    wide, never too narrow.
    """
    by_case = first - second
    effect = design_effect(by_case, groups)
    better, worse = float(by_case[by_case > 0].sum()), float(-by_case[by_case < 0].sum())
    low, high = tango(better / effect, worse / effect, len(by_case) / effect, level)
    share = (better + worse) / len(by_case)
    return Difference(float(by_case.mean()), low, high, len(by_case), share, effect)


def tango(better: float, worse: float, n: float, level: float = 0.95) -> Interval:
    """Returns Tango's score interval (1998) of a difference of paired shares.

    It is right without a discordant case too.
    """
    z = float(stats.norm.ppf((1 + level) / 2))
    seen = (better - worse) / n

    def score(delta: float) -> float:  # how many standard errors lie between what was seen and delta, if that were true
        return (better - worse - n * delta) / math.sqrt(n * _likeliest_variance(better, worse, n, delta))

    def bound(sign: int) -> float:
        end = sign * (1 - EDGE)
        if seen * sign >= 1 - 2 * EDGE:
            return float(sign)
        return float(optimize.brentq(lambda delta: score(delta) + sign * z, seen, end))

    return bound(-1), bound(1)


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """Whether the first run is worse than the second by less than the margin.

    Both bounds are one-sided at alpha. `needed` is how many cases show it with the wanted power if both runs are
    equally good and differ on as large a share of cases as they did here.
    """

    difference: float
    low: float
    high: float
    margin: float
    n: int
    discordant: float
    design_effect: float
    needed: int

    @property
    def shown(self) -> bool:
        return self.low > -self.margin

    @property
    def refuted(self) -> bool:
        """Returns whether the first run is worse by more than the margin, as surely."""
        return self.high < -self.margin


def non_inferiority(
    first: Floats, second: Floats, groups: Groups, margin: float, *, alpha: float = 0.05, power: float = 0.8
) -> NonInferiority:
    """Returns the test on these cases, with bounds and `needed` as NonInferiority says."""
    seen = difference(first, second, groups, 1 - 2 * alpha)
    needed = cases_needed(seen.discordant, margin, alpha=alpha, power=power, design_effect=seen.design_effect)
    return NonInferiority(seen.value, seen.low, seen.high, margin, seen.n, seen.discordant, seen.design_effect, needed)


def cases_needed(
    discordant: float,
    margin: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    true_difference: float = 0.0,
    design_effect: float = 1.0,
) -> int:
    """Returns how many cases show non-inferiority by the score test (Nam 1997), if runs differ on this share of cases.

    Raises ValueError where the true difference is the margin or worse: no number of cases shows it then.
    """
    if true_difference <= -margin:
        raise ValueError("a run that is worse by the margin is never shown to be better than that")
    discordant = max(discordant, abs(true_difference))
    z_alpha, z_power = (float(stats.norm.ppf(level)) for level in (1 - alpha, power))
    better, worse = (discordant + true_difference) / 2, (discordant - true_difference) / 2
    at_margin = _likeliest_variance(better, worse, 1, -margin)
    at_truth = discordant - true_difference**2
    wide = z_alpha * math.sqrt(at_margin) + z_power * math.sqrt(at_truth)
    without_discordant = z_alpha**2 * (1 - margin) / margin
    return math.ceil(design_effect * max((wide / (true_difference + margin)) ** 2, without_discordant))


def power_of_mcnemar(n: int, discordant: float, true_difference: float, alpha: float = 0.05) -> float:
    """Returns the chance that the exact two-sided test on n cases finds this difference.

    It is taken over all numbers of discordant cases.
    """
    likely = stats.binom.ppf([NEVER, 1 - NEVER], n, discordant)
    counts = np.arange(likely[0], likely[1] + 1)
    share_better = (discordant + true_difference) / (2 * discordant)
    rejected = stats.binom.ppf(alpha / 2, counts, 0.5) - 1  # at most: one more has more than alpha / 2 at or below it
    below, above = (rejected, counts, share_better), (counts - rejected - 1, counts, share_better)
    chance = stats.binom.cdf(*below) + stats.binom.sf(*above)
    return float(stats.binom.pmf(counts, n, discordant) @ chance)


@cache
def smallest_difference(n: int, discordant: float, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Returns the smallest true difference that the exact test would have found with this power.

    None if not even all discordant cases on one side would be found.
    """
    if not discordant or power_of_mcnemar(n, discordant, discordant, alpha) < power:
        return None

    def surplus(delta: float) -> float:
        return power_of_mcnemar(n, discordant, delta, alpha) - power

    return float(optimize.brentq(surplus, 0, discordant, xtol=1e-5))


def smallest_detectable(
    first: Floats, second: Floats, groups: Groups, *, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Returns the smallest true difference that the exact test on these cases would have found with this power.

    It counts as many cases as would tell as much if none shared an image. None where the runs differ on no case, or
    where not even all discordant cases on one side would be found.
    """
    test = mcnemar(first, second)
    n = round(test.n / design_effect(first - second, groups))
    return smallest_difference(n, test.discordant / test.n, alpha=alpha, power=power)


def _likeliest_variance(better: float, worse: float, n: float, delta: float) -> float:
    """Returns the variance of one case's difference, by the likeliest shares with this difference."""
    slope = (2 * n - better + worse) * delta - better - worse
    root = math.sqrt(max(0.0, slope**2 + 8 * n * worse * delta * (1 - delta)))
    share_worse = max(0.0, -delta, (root - slope) / (4 * n))
    return max(EDGE**2, 2 * share_worse + delta * (1 - delta))
