"""One thing that a release must show, and how it came out."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from scipy import stats

POINTS: Final = 100
#: The number of cases that stands for "any number is too small".
NEVER: Final = 100_000_000


class Status(StrEnum):
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    UNDECIDED = "undecided"  # too little data
    NO_LABEL = "no label"  # the data cannot show it, however much of it there is
    NOT_SHOWN = "not shown"  # too few cases to say anything, and nothing is asked of them
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """`low` and `high` are one-sided bounds of `value`. With `needed` cases an undecided check would likely decide."""

    name: str
    status: Status
    what: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    n: int | None = None
    needed: int | None = None


def of(passed: bool, failed: bool = True) -> Status:
    """Undecided where it neither passed nor failed."""
    return Status.PASS if passed else Status.FAIL if failed else Status.UNDECIDED


def needed(n: int, seen: float, bound: float, limit: float, alpha: float, power: float) -> int:
    """Returns with how many cases the bound would be on the figure's own side of the limit, with this power.

    Bounds come nearer with the root of the number of cases. Where the figure is the limit, it is NEVER.
    """
    distance = abs(seen - limit)
    if not distance:
        return NEVER
    z_alpha, z_power = stats.norm.ppf(1 - alpha), stats.norm.ppf(power)
    return min(NEVER, math.ceil(n * float(abs(bound - seen) * (1 + z_power / z_alpha) / distance) ** 2))


def points(value: float) -> str:
    return f"{POINTS * value:+.1f}"


def percent(value: float) -> str:
    return f"{POINTS * value:.1f}%"
