"""Right against wrong about phantoms: of what is taught, of phrasings that are held out, and of families."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from medreward.lab.phantoms.answer import RECIPES, written
from medreward.lab.phantoms.ask import Question, questions
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.draw import FAMILIES, HELD_OUT_FAMILIES, Phantom, draw, imagine
from medreward.lab.training.images import png
from medreward.lab.training.phantoms import FIRST_SEED, TAUGHT
from medreward.lab.training.served import Picture

SEEN, PHRASING, FAMILY = "seen", "phrasing held out", "family held out"
ABOUT_FINDINGS: Final = ("presence", "kind", "count", "side", "place", "size", "comparison")
PHANTOMS: Final = 40  # of taught families, and half as many of the others


@dataclass(frozen=True, slots=True)
class PhantomPair:
    picture: Picture
    question: str
    good: str
    bad: str
    novelty: str


def phantom_pairs(count: int = PHANTOMS) -> list[PhantomPair]:
    assert 2 * count < FIRST_SEED
    taught = [pair for seed in range(count) for pair in _pairs(seed, TAUGHT, TAUGHT)]
    new = [pair for seed in range(count, count + count // 2) for pair in _pairs(seed, HELD_OUT_FAMILIES, FAMILIES)]
    return [*taught, *(pair for pair in new if pair.novelty == FAMILY)]


def _pairs(seed: int, families: tuple[str, ...], spoken_of: tuple[str, ...]) -> Iterator[PhantomPair]:
    """Draws `families` in turn; the questions and wrong answers may speak of others."""
    family = families[seed % len(families)]
    phantom = imagine(seed, family=family)
    picture = Picture(f"phantom/{family}/{seed}", partial(_png, seed, family))
    for question in questions(phantom, seed, spoken_of):
        if question.kind in ABOUT_FINDINGS and (said := _right_and_wrong(phantom, question)):
            yield PhantomPair(picture, question.text, *said, _novelty(phantom, question))


def _novelty(phantom: Phantom, question: Question) -> str:
    if phantom.held_out and not question.held_out:
        return FAMILY
    return PHRASING if question.held_out else SEEN


def _right_and_wrong(phantom: Phantom, question: Question) -> tuple[str, str] | None:
    dice = Dice("measured", phantom.seed, question.text)
    wordy = dice.chance(0.5)
    right, wrong = (written(phantom, question, RECIPES[name], dice, wordy) for name in ("right", "wrong"))
    return (right.text, wrong.text) if right and wrong else None


def _png(seed: int, family: str) -> bytes:
    return png(draw(seed, family=family).pixels)
