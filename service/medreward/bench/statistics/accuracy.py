"""Shares of right answers, with intervals that know which cases share an image."""

from typing import Any, Final

import numpy as np
from scipy import stats

from medreward.bench.statistics import Floats, Groups, Interval
from medreward.intervals import wilson

RESAMPLES: Final = 2000


def credits_of(labels: Floats, choices: Floats) -> Floats:
    """A case without an answer stays in, as a wrong one."""
    return np.nan_to_num((1 + labels * choices) / 2)


def design_effect(values: Floats, groups: Groups) -> float:
    """How many times larger the variance of the mean is because cases share images; never below 1."""
    from_mean = values - values.mean()
    sums = _sums(from_mean, groups)
    if not from_mean.any() or len(sums) < 2:
        return 1.0
    grouped, alone = (float(values @ values) * len(values) / (len(values) - 1) for values in (sums, from_mean))
    return max(1.0, grouped / alone)


def grouped_wilson(values: Floats, groups: Groups) -> Interval:
    """Wilson's 95% interval of the number of cases that would tell as much if none shared an image."""
    n = len(values) / design_effect(values, groups)
    return wilson(float(values.mean()) * n, n)


def bootstrap(values: Floats, groups: Groups, *, level: float = 0.95, seed: int = 0) -> Interval | None:
    """Percentiles of the mean when images are drawn anew with all their cases; None for fewer than two images."""
    drawn = resampled_means(values, groups, seed=seed)
    return None if drawn is None else _percentiles(drawn, level)


def macro_bootstrap(
    values: Floats, parts: np.typing.NDArray[Any], groups: Groups, *, level: float = 0.95, seed: int = 0
) -> Interval | None:
    """Of the mean of the parts' means; images are drawn anew within each part. None if a part has fewer than two."""
    drawn = []
    for number, part in enumerate(np.unique(parts)):
        means = resampled_means(values[parts == part], groups[parts == part], seed=seed + number)
        if means is None:
            return None
        drawn.append(means)
    return _percentiles(np.mean(drawn, axis=0), level)


def resampled_means(values: Floats, groups: Groups, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats | None:
    sums, sizes = _sums(values, groups), _sums(np.ones(len(values)), groups)
    if len(sums) < 2:
        return None

    def mean(totals: Floats, counts: Floats, axis: int) -> Floats:
        quotient: Floats = totals.sum(axis) / counts.sum(axis)
        return quotient

    drawn = stats.bootstrap(
        (sums, sizes),
        mean,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    means: Floats = drawn.bootstrap_distribution
    return means


def _percentiles(drawn: Floats, level: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sums(values: Floats, groups: Groups) -> Floats:
    """One for each group."""
    _, numbers = np.unique(groups, return_inverse=True)
    return np.bincount(numbers, weights=values).astype(np.float64)
