"""summary.json: the official figures, the strict ones, and what a reader needs to judge them."""

import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from medreward.bench import official, verdict
from medreward.bench.answering import missing
from medreward.bench.cases import ANSWERS, Case
from medreward.intervals import Z, wilson
from medreward.types import DIMENSIONS

Answered = tuple[Case, Mapping[str, Any]]


def summarise(cases: Sequence[Case], predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the answers alone: the same predictions give the same bytes."""
    answered = list(zip(cases, predictions, strict=True))
    lacks = missing(prediction.get("logits") for prediction in predictions)
    is_judge = any("replies" in prediction for prediction in predictions)
    summary: dict[str, Any] = {
        "cases": len(cases),
        "statuses": dict(sorted(Counter(prediction["status"] for prediction in predictions).items())),
        "official": _official(answered),
        "strict": {
            "micro": _by_dimension(answered, micro, lacks),
            "macro": _by_dimension(answered, macro, lacks),
            "organ": _split(answered, lambda case: case.organ, lacks),
            "department": _split(answered, lambda case: case.department, lacks),
            "question_type": _split(answered, lambda case: case.question_type, lacks),
        },
    }
    return summary | ({"judge": _of_judge(predictions)} if is_judge else {})


@dataclass(frozen=True, slots=True)
class Tally:
    """Labelled cases of one dimension."""

    n: int
    correct: int
    ties: int
    unanswered: int

    @classmethod
    def of(cls, answered: Iterable[Answered], dimension: str) -> "Tally":
        given = [
            (case.labels[dimension], prediction["choices"][dimension])
            for case, prediction in answered
            if dimension in case.labels
        ]
        choices = [choice for _, choice in given]
        return cls(
            len(given), sum(label == choice for label, choice in given), choices.count("tie"), choices.count(None)
        )

    @property
    def credit(self) -> float:
        return self.correct + self.ties / 2

    def row(self, accuracy: float | None, ci95: tuple[float, float] | None) -> dict[str, Any]:
        return {
            "accuracy": None if accuracy is None else round(accuracy, 6),
            "ci95": None if ci95 is None else [round(max(0.0, ci95[0]), 6), round(min(1.0, ci95[1]), 6)],
            "n": self.n,
            "correct": self.correct,
            "ties": self.ties,
            "unanswered": self.unanswered,
        }


def micro(answered: Sequence[Answered], dimension: str) -> dict[str, Any]:
    """Every case weighs the same."""
    tally = Tally.of(answered, dimension)
    if not tally.n:
        return tally.row(None, None)
    return tally.row(tally.credit / tally.n, wilson(tally.credit, tally.n))


def macro(answered: Sequence[Answered], dimension: str) -> dict[str, Any]:
    """Every organ weighs the same; one without a label on this dimension is left out."""
    whole = Tally.of(answered, dimension)
    organs = dict.fromkeys(case.organ for case, _ in answered)
    tallies = [Tally.of([pair for pair in answered if pair[0].organ == organ], dimension) for organ in organs]
    tallies = [tally for tally in tallies if tally.n]
    if not tallies:
        return whole.row(None, None)
    accuracy = fmean(tally.credit / tally.n for tally in tallies)
    half = Z * math.sqrt(sum(_variance(tally) for tally in tallies)) / len(tallies)
    return whole.row(accuracy, (accuracy - half, accuracy + half))


def _variance(tally: Tally) -> float:
    """Of one organ's accuracy; two right and two wrong cases are added to its share, or a perfect organ had none."""
    share = (tally.credit + 2) / (tally.n + 4)
    return share * (1 - share) / tally.n


def _by_dimension(
    answered: Sequence[Answered], figure: Callable[[Sequence[Answered], str], Any], lacks: Container[str]
) -> dict[str, Any]:
    """Of a dimension that the model has not there is no accuracy: nothing was measured."""
    return {d: Tally.of(answered, d).row(None, None) if d in lacks else figure(answered, d) for d in DIMENSIONS}


def _split(answered: Sequence[Answered], part: Callable[[Case], str | None], lacks: Container[str]) -> dict[str, Any]:
    names = sorted({name for case, _ in answered if (name := part(case)) is not None})
    return {name: _by_dimension([pair for pair in answered if part(pair[0]) == name], micro, lacks) for name in names}


def _official(answered: Iterable[Answered]) -> dict[str, dict[str, float]]:
    labels: dict[str, list[tuple[Any, Mapping[str, str]]]] = {}
    verdicts: dict[str, list[tuple[Any, Mapping[str, str] | None]]] = {}
    for case, prediction in answered:
        labels.setdefault(case.organ, []).append((case.question_id, case.labels))
        verdicts.setdefault(case.organ, []).append((case.question_id, _official_verdict(prediction)))
    return official.table(labels, verdicts)


def _official_verdict(prediction: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Of a judge, its first text on the order of the files, read as the benchmark's script reads it."""
    if "replies" not in prediction:
        return {dimension: choice for dimension, choice in prediction["choices"].items() if choice in ANSWERS}
    text = prediction["replies"][0]["text"]
    return None if text is None else official.read_verdict(text)


def _of_judge(predictions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether the order of the answers decides, and how many texts were no votes."""
    replies = [prediction.get("replies", ()) for prediction in predictions]
    texts = [reply for some in replies for reply in some]
    return {
        "replies": len(texts),
        "unreadable": sum(reply["choices"] is None for reply in texts),
        "order": {dimension: _order(replies, dimension) for dimension in DIMENSIONS},
    }


def _order(replies: Iterable[Sequence[Mapping[str, Any]]], dimension: str) -> dict[str, Any]:
    """`first` is the share of votes for the answer that was shown first; without bias it is near a half."""
    pairs, votes, first = [], 0, 0
    for some in replies:
        by_order = {
            order: [reply["choices"] for reply in some if reply["order"] == order and reply["choices"]]
            for order in ("AB", "BA")
        }
        if all(by_order.values()):
            pairs.append([verdict.majority(choices, dimension) for choices in by_order.values()])
        votes += sum(map(len, by_order.values()))
        first += sum(choices[dimension] == order[0] for order, listed in by_order.items() for choices in listed)
    consistent = sum(a == b for a, b in pairs)
    return {
        "n": len(pairs),
        "consistent": consistent,
        "consistency": round(consistent / len(pairs), 6) if pairs else None,
        "first": round(first / votes, 6) if votes else None,
    }
