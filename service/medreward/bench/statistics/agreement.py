"""How far people who chose an answer agree, and a model with them.

Ratings are cases x annotators: the number of a category, or -1 where somebody did not rate.
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

from medreward.bench.statistics import Floats, Interval, Ints
from medreward.bench.statistics.accuracy import percentiles

MISSING: Final = -1


def cohen(one: Ints, other: Ints) -> tuple[float, Interval] | None:
    """Returns Cohen's kappa on what both rated, with its 95% interval; None where it is not defined."""
    both = (one != MISSING) & (other != MISSING)
    if not both.any():
        return None
    size = int(max(one.max(), other.max())) + 1
    table = np.zeros((max(2, size), max(2, size)), dtype=np.int64)
    np.add.at(table, (one[both], other[both]), 1)
    with np.errstate(all="ignore"):
        result = cohens_kappa(table)
    if not math.isfinite(result.kappa):
        return None
    return float(result.kappa), (float(result.kappa_low), float(result.kappa_upp))


def fleiss(ratings: Ints) -> float | None:
    """Returns Fleiss' kappa on the cases that everybody rated; None where it is not defined."""
    complete = ratings[(ratings != MISSING).all(axis=1)]
    if not len(complete) or len(np.unique(complete)) < 2:
        return None
    return float(fleiss_kappa(aggregate_raters(complete)[0]))


def krippendorff(ratings: Ints) -> float | None:
    """Returns Krippendorff's alpha for categories, on all cases that two or more rated.

    None where it is not defined.
    """
    counts = np.stack([(ratings == category).sum(axis=1) for category in range(int(ratings.max()) + 1)], axis=1)
    counts = counts[counts.sum(axis=1) > 1].astype(np.float64)
    per_case, per_category = counts.sum(axis=1), counts.sum(axis=0)
    total = per_case.sum()
    expected = total**2 - (per_category**2).sum()
    if not expected:
        return None
    differ = ((per_case**2 - (counts**2).sum(axis=1)) / (per_case - 1)).sum()
    return float(1 - (total - 1) * differ / expected)


def observed(ratings: Ints) -> float | None:
    """Returns the share of pairs of ratings of one case that agree; None without a pair."""
    counts = np.stack([(ratings == category).sum(axis=1) for category in range(int(ratings.max()) + 1)], axis=1)
    pairs = (counts.sum(axis=1) * (counts.sum(axis=1) - 1)).sum()
    return float((counts * (counts - 1)).sum() / pairs) if pairs else None


def interval(
    figure: Callable[[Ints], float | None], ratings: Ints, *, resamples: int = 1000, seed: int = 0
) -> Interval | None:
    """Returns the 95% interval of the figure, by drawing the cases anew; None where a draw may have no figure."""
    chance = np.random.default_rng(seed)
    draws = [figure(ratings[chance.integers(len(ratings), size=len(ratings))]) for _ in range(resamples)]
    values = [value for value in draws if value is not None]
    return percentiles(np.array(values), 0.95) if len(values) == resamples else None


def majority(sides: Floats) -> Floats:
    """Returns each case's side with more votes, 0 for equal, NaN for no vote.

    `sides` are cases x annotators, with A 1, B -1, tie 0, none NaN.
    """
    voted = ~np.isnan(sides)
    return np.where(voted.any(axis=1), np.sign(np.nansum(sides, axis=1)), np.nan)
