"""Any number of runs on the same cases: is there a difference at all, and which runs cannot be told apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_lowercase, ascii_uppercase

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
    """Returns the test on cases x runs, right or not; None if the runs are alike on every case."""
    if _are_alike(right):
        return None
    test = cochrans_q(right.astype(np.int64))
    return Test(float(test.statistic), (int(test.df),), float(test.pvalue))


def friedman(credit: Floats) -> Test | None:
    """Returns the test on cases x runs, which is Cochran's Q where ties have half credits.

    None for fewer than three runs, and if they are alike on every case.
    """
    if _are_alike(credit) or credit.shape[1] < 3:
        return None
    test = stats.friedmanchisquare(*credit.T)
    return Test(float(test.statistic), (credit.shape[1] - 1,), float(test.pvalue))


def repeated_measures_anova(credit: Floats) -> Test | None:
    """Returns the test on cases x runs; None if the runs are alike on every case.

    It takes credits for normal and their differences for equally spread. It is here for readers who ask for it.
    """
    if _are_alike(credit):
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
    """Returns for each run one more than the number of runs that are significantly better.

    So a run that cannot be told from the best one is first as well.
    """
    return [
        1 + sum(bool(differ[one, other]) and accuracy[other] > accuracy[one] for other in range(len(accuracy)))
        for one in range(len(accuracy))
    ]


def letters(accuracy: Sequence[float], differ: npt.NDArray[np.bool_]) -> list[str]:
    """Returns each run's letters: runs differ significantly if and only if they share none (Piepho 2004).

    The best run has "a". Behind z come A1, B1, …
    """
    groups = [frozenset(range(len(accuracy)))]
    for pair in combinations(range(len(accuracy)), 2):
        if differ[pair]:
            split = [group - {one} if {*pair} <= group else group for group in groups for one in pair]
            groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    groups.sort(key=lambda group: sorted(-accuracy[one] for one in group))
    names = [*ascii_lowercase, *(f"{ascii_uppercase[n % 26]}{n // 26}" for n in range(26, len(groups)))]
    named = list(zip(names, groups, strict=False))
    return ["".join(name for name, group in named if run in group) for run in range(len(accuracy))]


def _are_alike(credit: npt.NDArray[np.generic]) -> bool:
    return bool((credit == credit[:, :1]).all())
