"""From checks to one word."""

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Final

from medreward.bench.gate.checks import Check, Status


class Verdict(StrEnum):
    PROMOTE = "promote"
    REFUSE = "refuse"
    UNDECIDED = "undecided"


#: Twenty times the published benchmark: nobody will label more for one release.
MOST_CASES: Final = 20_000
EXIT: Final = {Verdict.PROMOTE: 0, Verdict.REFUSE: 1, Verdict.UNDECIDED: 3}


def verdict_of(found: Sequence[Check]) -> Verdict:
    """One failed check refuses. To promote, every check that was made must pass; one that is not shown asks nothing."""
    statuses = {check.status for check in found}
    if Status.FAIL in statuses:
        return Verdict.REFUSE
    made = statuses - {Status.SKIPPED, Status.NOT_SHOWN}
    return Verdict.PROMOTE if made == {Status.PASS} else Verdict.UNDECIDED


def cases_needed(found: Sequence[Check]) -> int | None:
    """Returns how many cases would likely decide every undecided check that cases can decide; None if there is none."""
    return max((check.needed for check in found if check.status == Status.UNDECIDED and check.needed), default=None)


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
