"""A labelled answer with its scores, and columns of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from medreward.bench.statistics import Floats, Groups
from medreward.screening.policy import Measure
from medreward.types import DIMENSIONS, Result, Scored

#: The evidence of a label that says nothing of who gave it.
NOT_STATED: Final = "not stated"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, what the model says of it, and whether it is right.

    `image` names what the answer is about. Answers about one image are not independent of each other.
    """

    right: bool
    image: str
    question: str
    response: str
    result: Result
    department: str = ""
    organ: str = ""
    set: str = ""
    evidence: str = NOT_STATED


def measured(answer: Answer, measure: Measure, dimension: str | None) -> float | None:
    """Returns the logit, the uncertainty or the reward of an answer; None where it has none."""
    result = answer.result
    if not isinstance(result, Scored):
        return None
    if measure is Measure.REWARD:
        return result.reward
    six = result.uncertainty if measure is Measure.UNCERTAINTY else result.logits
    return six[DIMENSIONS.index(dimension or "")] if six else None


def column(answers: Sequence[Answer], measure: Measure, dimension: str | None) -> Floats:
    """Returns that number of each answer, NaN where it has none."""
    values = [measured(answer, measure, dimension) for answer in answers]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def images_of(answers: Sequence[Answer]) -> Groups:
    """Returns a number for each answer; answers about the same image have the same one."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(answer.image, len(numbers)) for answer in answers], dtype=np.int64)
