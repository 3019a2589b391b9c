"""From checks to one word."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from medreward.bench.gate.checks import Check, Status


class Verdict(StrEnum):
    PROMOTE = "promote"
    REFUSE = "refuse"
    UNDECIDED = "undecided"


EXIT: Final = {Verdict.PROMOTE: 0, Verdict.REFUSE: 1, Verdict.UNDECIDED: 3}


def verdict_of(found: Sequence[Check]) -> Verdict:
    """One failed check refuses; every one must pass to promote."""
    statuses = {check.status for check in found}
    if Status.FAIL in statuses:
        return Verdict.REFUSE
    return Verdict.PROMOTE if statuses - {Status.SKIPPED} == {Status.PASS} else Verdict.UNDECIDED


def cases_needed(found: Sequence[Check]) -> int | None:
    """That would likely decide every check that is undecided."""
    return max((check.needed for check in found if check.status == Status.UNDECIDED and check.needed), default=None)
