"""A few small phantoms that never change: for a model's golden scores and for demonstrations."""

from collections.abc import Sequence
from dataclasses import dataclass

from medreward.lab.phantoms.answer import Answer, answers
from medreward.lab.phantoms.ask import Question, questions
from medreward.lab.phantoms.benchmark import png
from medreward.lab.phantoms.draw import REGIONS, draw

SIDE = 128
KINDS = ("right_full_insightful", "wrong_full", "refusal")


@dataclass(frozen=True, slots=True)
class Golden:
    """A picture with one question and some graded answers."""

    name: str
    png: bytes
    question: Question
    answers: tuple[Answer, ...]


def golden_images(count: int = 13, kinds: Sequence[str] = KINDS) -> list[Golden]:
    """Returns pictures of all regions in turn, each with one question and the answers of these kinds that it allows."""
    images = []
    for number in range(count):
        phantom = draw(number, REGIONS[number % len(REGIONS)], size=SIDE)
        asked = questions(phantom, number)
        question = asked[number % len(asked)]
        given = {answer.kind: answer for answer in answers(phantom, question, number)}
        chosen = tuple(given[kind] for kind in kinds if kind in given)
        images.append(Golden(f"{phantom.region}-{number}", png(phantom), question, chosen))
    return images
