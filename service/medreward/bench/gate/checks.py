"""One thing that a release must show and how it came out, and the verdict that follows from all of them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from scipy import stats

POINTS: Final = 100
#: The number of cases that stands for "any number is too small".
NEVER: Final = 100_000_000
#: Twenty times the published benchmark: nobody will label more for one release.
MOST_CASES: Final = 20_000


class Status(StrEnum):
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    UNDECIDED = "undecided"  # too little data
    NO_LABEL = "no label"  # the data cannot show it, however much of it there is
    NOT_SHOWN = "not shown"  # too few cases to say anything, and nothing is asked of them
    SKIPPED = "skipped"


class Verdict(StrEnum):
    PROMOTE = "promote"
    REFUSE = "refuse"
    UNDECIDED = "undecided"


EXIT: Final = {Verdict.PROMOTE: 0, Verdict.REFUSE: 1, Verdict.UNDECIDED: 3}


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


def status_of(passed: bool, failed: bool = True) -> Status:
    """Returns undecided where a check neither passed nor failed."""
    return Status.PASS if passed else Status.FAIL if failed else Status.UNDECIDED


def cases_to_decide(n: int, seen: float, bound: float, limit: float, alpha: float, power: float) -> int:
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


def verdict_of(checks: Sequence[Check]) -> Verdict:
    """Returns refuse where one check failed, and promote where every check that could be made passed.

    A check that is not shown asks nothing.
    """
    statuses = {check.status for check in checks}
    if Status.FAIL in statuses:
        return Verdict.REFUSE
    return Verdict.PROMOTE if statuses - {Status.SKIPPED, Status.NOT_SHOWN} == {Status.PASS} else Verdict.UNDECIDED


def needed_of_all(checks: Sequence[Check]) -> int | None:
    """Returns how many cases would likely decide every undecided check that cases can decide; None if there is none."""
    return max((check.needed for check in checks if check.status == Status.UNDECIDED and check.needed), default=None)


def needed_in_words(needed: int | None) -> str:
    """Returns a sentence on how many cases would decide, or that no number will; empty where nothing is needed."""
    if not needed:
        return ""
    if needed > MOST_CASES:
        return (
            f"More cases of this kind will never decide it: about {needed:,} would be needed, for a figure lies almost "
            "at its limit."
        )
    return f"About {needed:,} cases would be needed."


def why_undecided(statuses: Collection[str]) -> str:
    """Returns what keeps a verdict open: too little data, labels that are not there, or both."""
    reasons = {
        Status.UNDECIDED: "there is too little data",
        Status.NO_LABEL: "the data has no labels on some dimension that the policy needs",
    }
    return " and ".join(reason for status, reason in reasons.items() if status in statuses)
