"""Shares of right answers, with intervals that know which cases share an image.

Also what a shortcut reaches that needs no understanding: a model that does not beat one has shown nothing.
"""

from typing import Any, Final

import numpy as np
from scipy import stats

from medreward.bench.statistics import Floats, Groups, Interval, Ints
from medreward.intervals import wilson

RESAMPLES: Final = 2000


def credits_of(labels: Floats, choices: Floats) -> Floats:
    """Returns each case's credit. A case without an answer stays in, as a wrong one."""
    return np.nan_to_num((1 + labels * choices) / 2)


def by_length(labels: Floats, lengths: Ints) -> Floats:
    """Returns the credits of taking the longer answer, or the shorter one if that is right more often.

    The side is chosen on the very labels that it is measured on, which favours the shortcut. Lengths are cases x 2.
    """
    longer = np.sign(lengths[:, 0] - lengths[:, 1]).astype(np.float64)
    return max(credits_of(labels, longer), credits_of(labels, -longer), key=np.mean)


def by_position(labels: Floats) -> Floats:
    """Returns the credits of always taking A, or B if that is right more often."""
    first = np.ones(len(labels))
    return max(credits_of(labels, first), credits_of(labels, -first), key=np.mean)


def design_effect(values: Floats, groups: Groups) -> float:
    """Returns how many times larger the variance of the mean is because cases share images; never below 1."""
    from_mean = values - values.mean()
    sums = _group_sums(from_mean, groups)
    if not from_mean.any() or len(sums) < 2:
        return 1.0
    grouped, alone = (float(values @ values) * len(values) / (len(values) - 1) for values in (sums, from_mean))
    return max(1.0, grouped / alone)


def grouped_wilson(values: Floats, groups: Groups) -> Interval:
    """Returns Wilson's 95% interval, on the number of cases that would tell as much if none shared an image."""
    n = len(values) / design_effect(values, groups)
    return wilson(float(values.mean()) * n, n)


def bootstrap(values: Floats, groups: Groups, *, level: float = 0.95, seed: int = 0) -> Interval | None:
    """Returns percentiles of the mean when images are drawn anew with all their cases; None for one image or none."""
    means = resampled_means(values, groups, seed=seed)
    return None if means is None else percentiles(means, level)


def macro_bootstrap(
    values: Floats, parts: np.typing.NDArray[Any], groups: Groups, *, level: float = 0.95, seed: int = 0
) -> Interval | None:
    """Returns percentiles of the mean of the parts' means, where images are drawn anew within each part.

    None if a part has fewer than two images.
    """
    by_part = []
    for number, part in enumerate(np.unique(parts)):
        means = resampled_means(values[parts == part], groups[parts == part], seed=seed + number)
        if means is None:
            return None
        by_part.append(means)
    return percentiles(np.mean(by_part, axis=0), level)


def resampled_means(values: Floats, groups: Groups, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats | None:
    """Returns the mean of each of so many samples of images with all their cases; None for fewer than two images."""
    sums, sizes = _group_sums(values, groups), _group_sums(np.ones(len(values)), groups)
    if len(sums) < 2:
        return None

    def mean(totals: Floats, counts: Floats, axis: int) -> Floats:
        quotient: Floats = totals.sum(axis) / counts.sum(axis)
        return quotient

    sample = stats.bootstrap(
        (sums, sizes),
        mean,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    means: Floats = sample.bootstrap_distribution
    return means


def percentiles(means: Floats, level: float) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _group_sums(values: Floats, groups: Groups) -> Floats:
    """Returns the sum of each group's values."""
    _, numbers = np.unique(groups, return_inverse=True)
    return np.bincount(numbers, weights=values).astype(np.float64)
