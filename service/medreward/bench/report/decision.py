"""What may be said first: the gate's verdict where there is one, else what the figures show."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from medreward.bench.finished import FinishedRun
from medreward.bench.gate.verdict import needed_in_words, why_undecided
from medreward.bench.report.facts import Row
from medreward.bench.report.labels import Tone
from medreward.bench.report.page import points, share
from medreward.bench.rundir import PREDICTIONS
from medreward.errors import ConfigurationError

WORDS: Final[Mapping[str, tuple[str, Tone, str]]] = {
    "promote": ("Promote", "good", "The release gate found nothing against it: it may replace the model that serves."),
    "refuse": ("Refuse", "bad", "The release gate refuses it: it must not replace the model that serves."),
    "undecided": ("Undecided", "warn", "The release gate can neither promote nor refuse it: "),
}
URGENT: Final[Sequence[Tone]] = ("bad", "warn", "good", "plain")
TONES: Final[Mapping[str, Tone]] = {"pass": "good", "fail": "bad", "undecided": "warn", "no label": "warn"}


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
        """What stands against promotion."""
        return [check for check in self.checks if check.tone in ("bad", "warn")]


class GateCheck(msgspec.Struct, frozen=True):
    name: str
    status: str
    what: str


class Gate(msgspec.Struct, frozen=True):
    """What is shown of gate.json."""

    verdict: Literal["promote", "refuse", "undecided"]
    made: str
    candidate: dict[str, Any]
    baseline: dict[str, Any] | None
    policy: dict[str, Any]
    code: dict[str, Any]
    checks: list[GateCheck]
    cases_needed: int | None = None


def read_gate(file: Path, run: FinishedRun, baseline: FinishedRun | None) -> Gate:
    """A verdict on other predictions than these is refused."""
    try:
        gate = msgspec.json.decode(file.read_bytes(), type=Gate)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not a verdict of medreward bench gate: {error}") from None
    if gate.candidate.get("predictions") != _digest(run):
        raise ConfigurationError(f"{file} is a verdict on other predictions than those of {run.path}")
    if baseline and (gate.baseline or {}).get("predictions") != _digest(baseline):
        raise ConfigurationError(f"{file} is a verdict against another baseline than {baseline.path}")
    return gate


def _digest(run: FinishedRun) -> str:
    return f"sha256:{hashlib.sha256((run.path / PREDICTIONS).read_bytes()).hexdigest()}"


def by_gate(gate: Gate, overall: Row) -> Decision:
    word, tone, sentence = WORDS[gate.verdict]
    if gate.verdict == "undecided":
        sentence += f"{why_undecided({check.status for check in gate.checks}) or 'see its checks'}."
    needed = [words] if (words := needed_in_words(gate.cases_needed)) else []
    checks = [Check(one.name, one.status, TONES.get(one.status, "plain"), one.what) for one in gate.checks]
    checks.sort(key=lambda check: URGENT.index(check.tone))
    return Decision(word, tone, [sentence, *needed, *seen(overall)], checks)


def without_gate(overall: Row) -> Decision:
    nothing = "There is no release decision here; medreward bench gate makes one."
    if not overall.against:
        return Decision("Measured, not decided", "plain", [*seen(overall), nothing])
    if not overall.against.is_significant:
        return Decision("No difference shown", "plain", [*seen(overall), nothing])
    better = overall.against.difference.value > 0
    word = "Better than the baseline" if better else "Worse than the baseline"
    return Decision(word, "good" if better else "bad", [*seen(overall), nothing])


def seen(overall: Row) -> list[str]:
    """On `overall`, in plain words."""
    if not overall.share:
        return ["Nothing was measured on overall."]
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
