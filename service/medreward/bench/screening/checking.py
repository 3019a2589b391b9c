"""What a policy does to labelled answers: shares with intervals, by part, and under other shares of wrong answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from medreward.bench.screening.answers import Answer, images_of
from medreward.bench.screening.bounds import draws, grouped_interval, lower, upper
from medreward.bench.screening.writing import labels_in_words
from medreward.bench.statistics import Interval
from medreward.screening.deciding import Decider
from medreward.screening.policy import PolicyFile
from medreward.types import Verdict

BASE_RATES: Final = (0.05, 0.16, 0.3)
PARTS: Final[Mapping[str, Callable[[Answer], str]]] = {
    "organ": lambda answer: answer.organ,
    "department": lambda answer: answer.department,
    "set": lambda answer: answer.set,
}
#: So that two intervals hold together in 95 of 100, and with them what is computed from their ends.
BOTH: Final = 0.975


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many answers, with the 95% interval of the share, which knows which answers share an image."""

    count: int
    of: int
    low: float | None
    high: float | None

    @property
    def value(self) -> float | None:
        return self.count / self.of if self.of else None


@dataclass(frozen=True, slots=True)
class Part:
    """An organ, a department or a set."""

    kind: str
    name: str
    wrong_allowed: Share
    right_allowed: Share
    right_blocked: Share


@dataclass(frozen=True, slots=True)
class AtBaseRate:
    """What a verdict means where this share of all answers is wrong.

    `ppv` is the share of wrong ones among answers that are held back (not allowed), `npv` that of right ones among
    those allowed. None where no answer would be held back or allowed.
    """

    base_rate: float
    ppv: float | None
    ppv95: Interval | None
    npv: float | None
    npv95: Interval | None


@dataclass(frozen=True, slots=True)
class Bound:
    """The rate that a policy states, and what these labels say of it."""

    at_most: float
    confidence: float
    images: int
    allowed: int  # of one wrong answer drawn from each image; the fewest in a draw
    low: float  # one-sided bounds at the policy's confidence
    high: float
    own_labels: bool  # whether the policy was made from this very file

    @property
    def contradicted(self) -> bool:
        """Whether these labels speak against the stated rate, at its own confidence."""
        return self.low > self.at_most

    @property
    def confirmed(self) -> bool:
        """Whether these labels alone would show it."""
        return self.high <= self.at_most


@dataclass(frozen=True, slots=True)
class Words:
    """What a person reads first."""

    title: str
    lines: Sequence[str]
    tone: Literal["good", "bad", "warn"]


@dataclass(frozen=True, slots=True)
class Checked:
    """All that is said of a policy and labelled answers."""

    policy: PolicyFile
    matrix: Mapping[str, Mapping[Verdict, Share]]  # by "right" and "wrong"
    parts: Sequence[Part]
    base_rates: Sequence[AtBaseRate]
    bound: Bound | None  # None: the policy states none, or no answer is labelled wrong
    labels: Mapping[str, int]
    images: int

    def in_words(self) -> Words:
        """Returns whether the stated bound is met on these labels, and what that rests on."""
        bound, labels = self.bound, labels_in_words(self.labels)
        if bound is None:
            return Words(
                "No bound to check", ["The policy states none, or no answer is labelled wrong.", labels], "warn"
            )
        ends = f"{100 * bound.low:.3g}% or more, and {100 * bound.high:.3g}% or less, each at that confidence"
        seen = (
            f"It states at most {100 * bound.at_most:.4g}% of wrong answers, at confidence "
            f"{100 * bound.confidence:.4g}%. Of {bound.images} wrong answers, one drawn from each image, "
            f"{bound.allowed} were allowed: {ends}."
        )
        lines = [seen, labels]
        if bound.own_labels:
            lines.append("The policy was made from these very labels: this is no independent check.")
        if bound.contradicted:
            return Words("Contradicted: more wrong answers are allowed than the policy states", lines, "bad")
        if bound.confirmed:
            return Words("Met: these labels show the stated bound", lines, "good")
        return Words("Not contradicted; these labels are too few to show the bound by themselves", lines, "warn")

    def as_json(self) -> dict[str, Any]:
        """Returns what `screen check --json` prints."""
        bound = self.bound
        verdict = {"contradicted": bound.contradicted, "confirmed": bound.confirmed} if bound else {}
        return {
            "policy": self.policy.as_json(),
            "matrix": {
                side: {str(verdict): _share_json(share) for verdict, share in row.items()}
                for side, row in self.matrix.items()
            },
            "parts": [
                {"kind": part.kind, "name": part.name}
                | {
                    name: _share_json(getattr(part, name))
                    for name in ("wrong_allowed", "right_allowed", "right_blocked")
                }
                for part in self.parts
            ],
            "base_rates": [asdict(row) for row in self.base_rates],
            "bound": {**asdict(bound), **verdict} if bound else None,
            "labels": dict(self.labels),
            "images": self.images,
        }


def check(
    answers: Sequence[Answer], policy: PolicyFile, data: str, base_rates: Sequence[float] = BASE_RATES
) -> Checked:
    """Returns what the policy does to the answers; `data` is the digest of their file."""
    decider = Decider(policy.policy, None)
    verdicts = [decider.decide(one.result, one.response, one.department).verdict for one in answers]
    table = Table(answers, np.array([list(Verdict).index(verdict) for verdict in verdicts]))
    labels: dict[str, int] = {}
    for answer in answers:
        labels[answer.evidence] = labels.get(answer.evidence, 0) + 1
    return Checked(
        policy,
        {
            "right" if side else "wrong": {verdict: table.share(side, verdict) for verdict in Verdict}
            for side in (True, False)
        },
        list(table.parts()),
        [table.at_base_rate(rate) for rate in base_rates],
        _bound(answers, verdicts, policy, data),
        labels,
        table.images,
    )


class Table:
    """Answers and verdicts in columns."""

    def __init__(self, answers: Sequence[Answer], verdicts: np.typing.NDArray[np.int64]) -> None:
        self._answers = answers
        self._right = np.array([answer.right for answer in answers], dtype=bool)
        self._images = images_of(answers)
        self._verdicts = verdicts

    @property
    def images(self) -> int:
        return len(np.unique(self._images))

    def share(self, right: bool, verdict: Verdict, within: np.typing.NDArray[np.bool_] | None = None) -> Share:
        """Returns the share of right (or wrong) answers that have the verdict."""
        which = (self._right == right) & (True if within is None else within)
        has = (self._verdicts[which] == list(Verdict).index(verdict)).astype(np.float64)
        low, high = grouped_interval(has, self._images[which]) or (None, None)
        return Share(int(has.sum()), len(has), low, high)

    def parts(self) -> "list[Part]":
        """Returns each organ, department and set that a label names."""
        found = []
        for kind, name_of in PARTS.items():
            names = np.array([name_of(answer) for answer in self._answers])
            for name in sorted({*names} - {""}):
                within = names == name
                wrong = self.share(False, Verdict.ALLOW, within)
                right = [self.share(True, verdict, within) for verdict in (Verdict.ALLOW, Verdict.BLOCK)]
                found.append(Part(kind, str(name), wrong, *right))
        return found

    def at_base_rate(self, rate: float) -> AtBaseRate:
        """Returns what held back and allowed mean where this share of answers is wrong."""
        allowed = self._verdicts == list(Verdict).index(Verdict.ALLOW)
        wrong, right = (allowed[self._right == side].astype(np.float64) for side in (False, True))
        if not len(wrong) or not len(right):
            return AtBaseRate(rate, None, None, None, None)
        ends = [
            grouped_interval(values, self._images[self._right == side], BOTH) or (0.0, 1.0)
            for values, side in ((wrong, False), (right, True))
        ]
        (wrong_low, wrong_high), (right_low, right_high) = ends
        found: list[tuple[float | None, Interval | None]] = []
        for worth in (_held_back, _let_through):
            value = worth(rate, float(wrong.mean()), float(right.mean()))
            low, high = worth(rate, wrong_high, right_low), worth(rate, wrong_low, right_high)
            found.append((value, None if value is None or low is None or high is None else (low, high)))
        return AtBaseRate(rate, *found[0], *found[1])


def _held_back(rate: float, wrong_allowed: float, right_allowed: float) -> float | None:
    """Returns the share of wrong answers among those that are not allowed."""
    wrong, right = rate * (1 - wrong_allowed), (1 - rate) * (1 - right_allowed)
    return wrong / (wrong + right) if wrong + right else None


def _let_through(rate: float, wrong_allowed: float, right_allowed: float) -> float | None:
    """Returns the share of right answers among those that are allowed."""
    wrong, right = rate * wrong_allowed, (1 - rate) * right_allowed
    return right / (wrong + right) if wrong + right else None


def _bound(answers: Sequence[Answer], verdicts: Sequence[Verdict], policy: PolicyFile, data: str) -> Bound | None:
    stated = policy.policy.false_allow
    wrong = [(one, verdict) for one, verdict in zip(answers, verdicts, strict=True) if not one.right]
    if not stated or not wrong:
        return None
    drawn = draws([one for one, _ in wrong])
    images = len(drawn[0])
    allowed = [sum(wrong[place][1] is Verdict.ALLOW for place in places) for places in drawn]
    # Each draw is a valid trial. The fewest must speak against the bound, the most must show it: luck decides neither.
    low, high = lower(min(allowed), images, stated.confidence), upper(max(allowed), images, stated.confidence)
    return Bound(stated.at_most, stated.confidence, images, min(allowed), low, high, stated.data == data)


def _share_json(share: Share) -> dict[str, Any]:
    return {**asdict(share), "share": share.value}
