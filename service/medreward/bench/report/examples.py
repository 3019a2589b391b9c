"""Which cases a reader should see: those that went most wrong, and those that were wrong with most confidence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from medreward.bench.answering import OK
from medreward.bench.cases import ANSWERS, Case
from medreward.bench.finished import Asked, FinishedRun, Predicted
from medreward.bench.report.pictures import data_uri
from medreward.types import DIMENSIONS

LONG: Final = 1500
Texts = Mapping[tuple[str, str], Case]
Pair = tuple[Asked, Predicted]


@dataclass(frozen=True, slots=True)
class Judged:
    """One dimension of a case. `sure` is the probability that the model gave to what it chose."""

    dimension: str
    label: str | None
    choice: str | None
    sure: float | None
    logits: tuple[float, float] | None

    @property
    def wrong(self) -> bool:
        return self.label is not None and self.choice != self.label

    @property
    def misplaced(self) -> float:
        """Confidence in the answer that is not the labelled one."""
        return self.sure if self.sure is not None and self.wrong and self.choice in ANSWERS else 0.0


@dataclass(frozen=True, slots=True)
class Example:
    """A case as the page shows it; without its texts where the data is not at hand."""

    asked: Asked
    status: str
    judged: Sequence[Judged]
    picture: str | None
    question: str | None
    answers: Sequence[str]

    @property
    def overall(self) -> Judged:
        return self.judged[-1]

    @property
    def wrong(self) -> int:
        return sum(one.wrong for one in self.judged)


def worst(run: FinishedRun) -> list[Pair]:
    """Answered, and wrong on the most dimensions; of equals, the surest."""
    wrong = [(pair, [one for one in judged(pair) if one.wrong]) for pair in _pairs(run) if pair[1].status == OK]
    wrong.sort(key=lambda found: (-len(found[1]), -sum(one.misplaced for one in found[1])))
    return [pair for pair, some in wrong if some]


def most_surprising(run: FinishedRun) -> list[Pair]:
    """Wrong on any dimension with most confidence; a judge tells none."""
    sure = [(pair, max(one.misplaced for one in judged(pair))) for pair in _pairs(run)]
    sure.sort(key=lambda found: -found[1])
    return [pair for pair, misplaced in sure if misplaced]


def lost(run: FinishedRun, baseline: FinishedRun) -> list[Pair]:
    """Right on `overall` by the baseline, and wrong now; the surest first."""
    right = {pair[0].key for pair in _pairs(baseline) if not judged(pair)[-1].wrong}
    wrong = [(pair, judged(pair)[-1]) for pair in _pairs(run) if pair[0].key in right]
    wrong = sorted((found for found in wrong if found[1].wrong), key=lambda found: -found[1].misplaced)
    return [pair for pair, _ in wrong]


def example(pair: Pair, texts: Texts) -> Example:
    asked, prediction = pair
    case = texts.get(asked.key)
    return Example(
        asked=asked,
        status=prediction.status,
        judged=judged(pair),
        picture=data_uri(case.image) if case else None,
        question=_cut(case.question) if case else None,
        answers=[_cut(answer) for answer in case.answers] if case else [],
    )


def judged(pair: Pair) -> list[Judged]:
    return [_judged(*pair, dimension) for dimension in DIMENSIONS]


def _judged(asked: Asked, prediction: Predicted, dimension: str) -> Judged:
    label, choice = asked.labels.get(dimension), prediction.choices[dimension]
    if not prediction.logits:
        return Judged(dimension, label, choice, None, None)
    a, b = prediction.logits["A"][dimension], prediction.logits["B"][dimension]
    if a is None or b is None:  # the model has no such dimension, and cannot be wrong on it
        return Judged(dimension, None, None, None, None)
    return Judged(dimension, label, choice, 1 / (1 + math.exp(-min(abs(a - b), 700))), (a, b))


def _pairs(run: FinishedRun) -> list[Pair]:
    return list(zip(run.cases, run.predictions, strict=True))


def _cut(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:LONG]} … ({len(text) - LONG} more characters)"
