"""One thing that a release must show, and how it came out."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from scipy import stats

POINTS: Final = 100


class Status(StrEnum):
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    UNDECIDED = "undecided"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """`low` and `high` are one-sided bounds of `value`. `needed` cases would likely decide what these could not."""

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


def needed(n: int, seen: float, bound: float, limit: float, alpha: float, power: float) -> int | None:
    """Cases by which the bound would be on the side of the limit where the figure is now, with this power.

    Bounds come nearer with the root of the number of cases. None where the figure is the limit.
    """
    distance = abs(seen - limit)
    if not distance:
        return None
    z_alpha, z_power = stats.norm.ppf(1 - alpha), stats.norm.ppf(power)
    return math.ceil(n * float(abs(bound - seen) * (1 + z_power / z_alpha) / distance) ** 2)


def points(value: float) -> str:
    return f"{POINTS * value:+.1f}"


def percent(value: float) -> str:
    return f"{POINTS * value:.1f}%"
