"""What kind of labels stand behind the figures, in words that nobody can mistake."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from medreward.bench.cases import CONSTRUCTED

PHYSICIAN: Final = "physician"
Tone = Literal["good", "bad", "warn", "plain"]


@dataclass(frozen=True, slots=True)
class Labels:
    headline: str
    detail: str
    tone: Tone


def labels_of(evidence: Mapping[str, int]) -> Labels:
    """From a run's count of cases by what their rows say."""
    total = sum(evidence.values())
    if evidence.get(CONSTRUCTED) == total:
        detail = f"All {total} cases were labelled by rule. These figures say nothing about what a physician prefers."
        return Labels("Constructed labels, not clinical evidence.", detail, "warn")
    if evidence.get(PHYSICIAN) == total:
        return Labels("Physicians' labels.", f"All {total} cases were labelled by physicians.", "plain")
    if CONSTRUCTED not in evidence and PHYSICIAN not in evidence:
        detail = (
            f"None of the {total} cases says who labelled it. Med-RewardBench's labels are physicians' majorities; "
            "that this is its data is for the digest to show."
        )
        return Labels("Origin of the labels not stated.", detail, "warn")
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(evidence.items()))
    return Labels("Mixed labels.", f"{counted}. The figures are over all of them together.", "warn")
