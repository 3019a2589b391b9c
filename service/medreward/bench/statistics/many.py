"""Any number of runs on the same cases: is there a difference at all, and which runs cannot be told apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_lowercase

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.contingency_tables import cochrans_q

from medreward.bench.statistics import Floats


@dataclass(frozen=True, slots=True)
class Test:
    statistic: float
    df: tuple[int, ...]
    p: float


def cochran_q(right: npt.NDArray[np.bool_]) -> Test | None:
    """Of cases x runs, right or not; None if the runs are alike on every case."""
    if _alike(right):
        return None
    found = cochrans_q(right.astype(np.int64))
    return Test(float(found.statistic), (int(found.df),), float(found.pvalue))


def friedman(credit: Floats) -> Test | None:
    """Of cases x runs, three runs or more: Cochran's Q, where ties have half credits."""
    if _alike(credit) or credit.shape[1] < 3:
        return None
    found = stats.friedmanchisquare(*credit.T)
    return Test(float(found.statistic), (credit.shape[1] - 1,), float(found.pvalue))


def repeated_measures_anova(credit: Floats) -> Test | None:
    """Of cases x runs. It takes credits for normal and their differences for equally spread: for readers who ask."""
    if _alike(credit):
        return None
    # statsmodels' AnovaRM builds a matrix with a row and a column for each case of each run. Of 1,000 cases and ten
    # runs that is 800 MB.
    cases, runs = credit.shape
    mean = credit.mean()
    between = cases * ((credit.mean(axis=0) - mean) ** 2).sum()
    rest = ((credit - credit.mean(axis=0) - credit.mean(axis=1, keepdims=True) + mean) ** 2).sum()
    df = runs - 1, (runs - 1) * (cases - 1)
    if rest < 1e-12:
        return Test(math.inf, df, 0.0)
    statistic = float(between / df[0] / (rest / df[1]))
    return Test(statistic, df, float(stats.f.sf(statistic, *df)))


def ranks(accuracy: Sequence[float], differ: npt.NDArray[np.bool_]) -> list[int]:
    """One more than the number of runs that are significantly better: who cannot be told from the best is first."""
    return [
        1 + sum(bool(differ[one, other]) and accuracy[other] > accuracy[one] for other in range(len(accuracy)))
        for one in range(len(accuracy))
    ]


def letters(accuracy: Sequence[float], differ: npt.NDArray[np.bool_]) -> list[str]:
    """Runs differ significantly if and only if they share no letter (Piepho 2004); the best one has "a"."""
    groups = [frozenset(range(len(accuracy)))]
    for pair in combinations(range(len(accuracy)), 2):
        if differ[pair]:
            split = [group - {one} if {*pair} <= group else group for group in groups for one in pair]
            groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    groups.sort(key=lambda group: sorted(-accuracy[one] for one in group))
    return ["".join(_letter(n) for n, group in enumerate(groups) if one in group) for one in range(len(accuracy))]


def _letter(number: int) -> str:
    """a to z, then A1, B1, …"""
    if number < len(ascii_lowercase):
        return ascii_lowercase[number]
    return f"{ascii_lowercase[number % 26].upper()}{number // 26}"


def _alike(credit: npt.NDArray[np.generic]) -> bool:
    return bool((credit == credit[:, :1]).all())
