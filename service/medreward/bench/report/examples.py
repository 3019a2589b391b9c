"""Which cases a reader should see: those that went most wrong, and those that were wrong with most confidence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medreward.bench.cases import ANSWERS
from medreward.bench.report.pictures import data_uri
from medreward.bench.tables import Answered
from medreward.types import DIMENSIONS

LONG = 1500


@dataclass(frozen=True, slots=True)
class Judged:
    """One dimension of a case. `sure` is the share of belief in what was chosen."""

    dimension: str
    label: str | None
    choice: str | None
    sure: float | None
    logits: tuple[float, float] | None

    @property
    def wrong(self) -> bool:
        return self.label is not None and self.choice != self.label

    @property
    def belief(self) -> float:
        """In the answer that is not labelled; where nothing is known about it, none."""
        return self.sure if self.sure is not None and self.wrong and self.choice in ANSWERS else 0.0


@dataclass(frozen=True, slots=True)
class Example:
    """A case as the page shows it."""

    id: str
    organ: str
    department: str | None
    status: str
    picture: str | None
    question: str
    answers: tuple[str, str]
    evidence: str | None
    judged: Sequence[Judged]


def worst(answered: Sequence[Answered], count: int) -> list[Answered]:
    """Wrong on the most dimensions; of equals, the surest."""
    wrong = [(pair, [one for one in judged(pair) if one.wrong]) for pair in answered]
    ranked = sorted((found for found in wrong if found[1]), key=lambda found: (-len(found[1]), -_belief(found[1])))
    return [pair for pair, _ in ranked[:count]]


def most_surprising(answered: Sequence[Answered], count: int) -> list[Answered]:
    """Wrong on any dimension with most confidence."""
    beliefs = [(pair, max((one.belief for one in judged(pair)), default=0.0)) for pair in answered]
    ranked = sorted((found for found in beliefs if found[1] > 0), key=lambda found: -found[1])
    return [pair for pair, _ in ranked[:count]]


def lost(answered: Sequence[Answered], baseline: Sequence[Answered], count: int) -> list[Answered]:
    """Right on `overall` by the baseline and wrong now; the surest first."""
    right = {case.key for case, prediction in baseline if _is_right(case.labels, prediction)}
    wrong = [(pair, judged(pair)[-1]) for pair in answered if pair[0].key in right]
    ranked = sorted((found for found in wrong if found[1].wrong), key=lambda found: -found[1].belief)
    return [pair for pair, _ in ranked[:count]]


def example(pair: Answered) -> Example:
    case, prediction = pair
    return Example(
        id=str(case.question_id),
        organ=case.organ,
        department=case.department,
        status=prediction["status"],
        picture=data_uri(case.image),
        question=_cut(case.question),
        answers=(_cut(case.answers[0]), _cut(case.answers[1])),
        evidence=case.evidence,
        judged=judged(pair),
    )


def judged(pair: Answered) -> list[Judged]:
    case, prediction = pair
    return [_judged(case.labels.get(dimension), prediction, dimension) for dimension in DIMENSIONS]


def _judged(label: str | None, prediction: Mapping[str, Any], dimension: str) -> Judged:
    choice = prediction["choices"][dimension]
    if logits := prediction["logits"]:
        a, b = (logits[answer][dimension] for answer in ANSWERS)
        return Judged(dimension, label, choice, 1 / (1 + math.exp(-abs(a - b))), (a, b))
    votes = [reply["choices"][dimension] for reply in prediction.get("replies", ()) if reply["choices"]]
    return Judged(dimension, label, choice, votes.count(choice) / len(votes) if choice in votes else None, None)


def _is_right(labels: Mapping[str, str], prediction: Mapping[str, Any]) -> bool:
    return "overall" in labels and bool(prediction["choices"]["overall"] == labels["overall"])


def _belief(wrong: Sequence[Judged]) -> float:
    return sum(one.belief for one in wrong)


def _cut(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:LONG]} … ({len(text) - LONG} more characters)"
