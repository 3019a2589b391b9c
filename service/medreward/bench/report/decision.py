"""What may be said first: the gate's verdict where there is one, else what the figures show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from medreward.bench.report.facts import Row
from medreward.bench.report.labels import Tone
from medreward.bench.report.page import points, share

WORDS: Final[Mapping[str, tuple[str, Tone, str]]] = {
    "promote": ("Promote", "good", "The release gate found nothing against it: it may replace the model that serves."),
    "refuse": ("Refuse", "bad", "The release gate refuses it: it must not replace the model that serves."),
    "undecided": ("Undecided", "warn", "Too little data for the release gate to promote or to refuse it."),
}
URGENT: Final[Sequence[Tone]] = ("bad", "warn", "good", "plain")
TONES: Final[Mapping[str, Tone]] = {"pass": "good", "fail": "bad", "undecided": "warn"}


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: str
    tone: Tone
    what: str


@dataclass(frozen=True, slots=True)
class Decision:
    word: str
    tone: Tone
    sentences: Sequence[str]
    checks: Sequence[Check] = ()


def by_gate(gate: Mapping[str, Any], overall: Row) -> Decision:
    word, tone, sentence = WORDS[gate["verdict"]]
    checks = [Check(one["name"], one["status"], TONES.get(one["status"], "plain"), one["what"]) for one in gate["checks"]]
    checks.sort(key=lambda check: URGENT.index(check.tone))
    return Decision(word, tone, [sentence, *_seen(overall)], checks)


def without_gate(overall: Row) -> Decision:
    nothing = "No release decision stands here: medreward bench gate makes one."
    if not overall.against:
        return Decision("Measured, not decided", "plain", [*_seen(overall), nothing])
    if not overall.against.is_significant:
        return Decision("No difference shown", "plain", [*_seen(overall), nothing])
    better = overall.against.difference.value > 0
    word, tone = ("Better than the baseline", "good") if better else ("Worse than the baseline", "bad")
    return Decision(word, tone, [*_seen(overall), nothing])


def _seen(overall: Row) -> list[str]:
    """On `overall`, in plain words."""
    if not overall.share:
        return ["No case has a label on overall."]
    seen = overall.share
    sentences = [
        f"On overall it prefers the labelled answer in {share(seen.value)}% of {overall.n} cases "
        f"(95%: {share(seen.low)} to {share(seen.high)})."
    ]
    if against := overall.against:
        found = against.difference
        sentences.append(
            f"That is {points(found.value)} points against the baseline ({points(found.low)} to {points(found.high)}), "
            f"{'a significant difference' if against.is_significant else 'no significant difference'}."
        )
    return sentences
