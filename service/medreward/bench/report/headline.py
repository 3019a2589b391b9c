"""What is said first: the gate's verdict where there is one, else what the figures show; and whose labels they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from medreward.bench.cases import CONSTRUCTED
from medreward.bench.finished import FinishedRun
from medreward.bench.gate.checks import needed_in_words, why_undecided
from medreward.bench.report.facts import Row
from medreward.bench.report.page import points, share
from medreward.errors import ConfigurationError

Tone = Literal["good", "bad", "warn", "plain"]
PHYSICIAN: Final = "physician"
WORDS: Final[Mapping[str, tuple[str, Tone, str]]] = {
    "promote": ("Promote", "good", "The release gate found nothing against it: it may replace the model that serves."),
    "refuse": ("Refuse", "bad", "The release gate refuses it: it must not replace the model that serves."),
    "undecided": ("Undecided", "warn", "The release gate can neither promote nor refuse it: "),
}
URGENT: Final[Sequence[Tone]] = ("bad", "warn", "good", "plain")
TONES: Final[Mapping[str, Tone]] = {"pass": "good", "fail": "bad", "undecided": "warn", "no label": "warn"}


@dataclass(frozen=True, slots=True)
class Labels:
    headline: str
    detail: str
    tone: Tone


def labels_of(evidence: Mapping[str, int]) -> Labels:
    """Returns whose labels these are, by how many cases say what of theirs."""
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

    @property
    def open(self) -> list[Check]:
        """Returns the checks that stand against promotion."""
        return [check for check in self.checks if check.tone in ("bad", "warn")]


class GateCheck(msgspec.Struct, frozen=True):
    name: str
    status: str
    what: str


class Gate(msgspec.Struct, frozen=True):
    """The part of gate.json that is shown."""

    verdict: Literal["promote", "refuse", "undecided"]
    made: str
    candidate: dict[str, Any]
    baseline: dict[str, Any] | None
    policy: dict[str, Any]
    code: dict[str, Any]
    checks: list[GateCheck]
    cases_needed: int | None = None


def read_gate(file: Path, run: FinishedRun, baseline: FinishedRun | None) -> Gate:
    """Returns the verdict; raises ConfigurationError if it is one on other predictions than these, or none at all."""
    try:
        gate = msgspec.json.decode(file.read_bytes(), type=Gate)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not a verdict of medreward bench gate: {error}") from None
    if gate.candidate.get("predictions") != run.predictions_digest:
        raise ConfigurationError(f"{file} is a verdict on other predictions than those of {run.path}")
    if baseline and (gate.baseline or {}).get("predictions") != baseline.predictions_digest:
        raise ConfigurationError(f"{file} is a verdict against another baseline than {baseline.path}")
    return gate


def by_gate(gate: Gate, overall: Row) -> Decision:
    """Returns what the gate decided, its open checks first."""
    word, tone, sentence = WORDS[gate.verdict]
    if gate.verdict == "undecided":
        sentence += f"{why_undecided({check.status for check in gate.checks}) or 'see its checks'}."
    needed = [words] if (words := needed_in_words(gate.cases_needed)) else []
    checks = [Check(one.name, one.status, TONES.get(one.status, "plain"), one.what) for one in gate.checks]
    checks.sort(key=lambda check: URGENT.index(check.tone))
    return Decision(word, tone, [sentence, *needed, *_in_words(overall)], checks)


def without_gate(overall: Row) -> Decision:
    """Returns what the figures show, and that nothing was decided."""
    nothing = "There is no release decision here; medreward bench gate makes one."
    if not overall.against:
        return Decision("Measured, not decided", "plain", [*_in_words(overall), nothing])
    if not overall.against.is_significant:
        return Decision("No difference shown", "plain", [*_in_words(overall), nothing])
    better = overall.against.difference.value > 0
    word = "Better than the baseline" if better else "Worse than the baseline"
    return Decision(word, "good" if better else "bad", [*_in_words(overall), nothing])


def _in_words(overall: Row) -> list[str]:
    """Returns sentences on `overall`: its accuracy, and the difference from the baseline."""
    figure, against = overall.figure, overall.against
    if figure.accuracy is None:
        return ["Nothing was measured on overall."]
    sentences = [
        f"On overall it prefers the labelled answer in {share(figure.accuracy)}% of {figure.n} cases "
        f"(95%: {share(figure.low)} to {share(figure.high)})."
    ]
    if against:
        lead = against.difference
        sentences.append(
            f"That is {points(lead.value)} points against the baseline ({points(lead.low)} to {points(lead.high)}), "
            f"{'a significant difference' if against.is_significant else 'no significant difference'}."
        )
    return sentences
