"""Graded answers: what each construction does to the six dimensions, by the definitions of the benchmark's page."""

from dataclasses import dataclass
from typing import Final

from medreward.types import DIMENSIONS

Grades = tuple[float | None, ...]  # from 0 to 1 in the order of DIMENSIONS; None where the construction does not say


@dataclass(frozen=True, slots=True)
class Answer:
    """A text and its grades.

    A teacher, where there is one, reads `like` in its place, a plainer text of the same worth, and is not asked at all
    about what it is known to misjudge.
    """

    text: str
    grades: Grades
    like: str | None = None  # None: the text itself
    less: float = 0.0  # than what a teacher says, in the usual spread of scores
    taught: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """Answers to one question about one image, or about none."""

    image: str | None
    question: str
    answers: tuple[Answer, ...]
    exact: bool = False  # the grades were given with the answers, not by a rule of this room


def grades(**named: float | None) -> Grades:
    return tuple(named[dimension] for dimension in DIMENSIONS)


def changed(base: Grades, **by: float | None) -> Grades:
    """Returns the grades moved by so much, within 0 and 1; None makes one unknown."""
    moved = dict(zip(DIMENSIONS, base, strict=True))
    for name, change in by.items():
        grade = moved[name]
        moved[name] = None if change is None or grade is None else min(1.0, max(0.0, grade + change))
    return tuple(moved.values())


RIGHT: Final = grades(
    accuracy=1.0, relevance=0.9, comprehensiveness=0.5, creativity=0.35, responsiveness=0.9, overall=0.8
)
WRONG: Final = grades(
    accuracy=0.0, relevance=0.85, comprehensiveness=0.4, creativity=0.3, responsiveness=0.85, overall=0.15
)
ELSEWHERE: Final = grades(  # true of the image, but the answer to something else
    accuracy=None, relevance=0.25, comprehensiveness=0.1, creativity=0.2, responsiveness=0.2, overall=0.3
)
UNRELATED: Final = grades(  # about another image and another question
    accuracy=0.1, relevance=0.05, comprehensiveness=0.05, creativity=0.15, responsiveness=0.15, overall=0.08
)
REFUSED: Final = grades(
    accuracy=None, relevance=0.25, comprehensiveness=0.05, creativity=0.05, responsiveness=0.03, overall=0.2
)
EVADED: Final = grades(
    accuracy=None, relevance=0.3, comprehensiveness=0.08, creativity=0.08, responsiveness=0.07, overall=0.2
)
GENERIC: Final = grades(
    accuracy=None, relevance=0.15, comprehensiveness=0.05, creativity=0.05, responsiveness=0.1, overall=0.15
)
NOTHING: Final = grades(
    accuracy=None, relevance=0.02, comprehensiveness=0.0, creativity=0.0, responsiveness=0.02, overall=0.02
)
