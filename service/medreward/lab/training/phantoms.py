"""Phantoms to learn from: their exact facts as cases, and the answers that come with their grades as groups.

Families and phrasings that are held out for measuring are left out here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator

from medreward.lab.phantoms.answer import answers
from medreward.lab.phantoms.ask import Question, questions
from medreward.lab.phantoms.draw import FAMILIES, HELD_OUT_FAMILIES, Phantom, draw, imagine
from medreward.lab.training import recipe
from medreward.lab.training.cases import Case, hash_of
from medreward.lab.training.grades import Answer, Group
from medreward.lab.training.images import Maker, png
from medreward.types import DIMENSIONS

FIRST_SEED = 1_000_000  # those below are for measuring
TAUGHT = tuple(family for family in FAMILIES if family not in HELD_OUT_FAMILIES)
OF_ALL = ("modality", "region", "plane", "normality")  # what can be asked of every phantom
OF_A_SCENE = ("kind", "place")  # whose answers compete with those of the same scene only
TURNS = 2  # of asking everything about a phantom
ASKED = 2  # questions about a phantom whose answers are graded
ANSWERS = 5  # of a question


@dataclass(frozen=True, slots=True)
class Drawn:
    makers: dict[str, Maker]
    cases: list[Case]
    groups: list[Group]


def draw_phantoms(settings: recipe.Recipe) -> Drawn:
    dice = np.random.default_rng([settings.seed, FIRST_SEED])
    drawn = Drawn({}, [], [])
    for seed in range(FIRST_SEED, FIRST_SEED + settings.phantoms):
        phantom = imagine(seed)
        if phantom.held_out:
            continue
        name = (
            f"phantom/{seed}-{hash_of(repr(phantom)):08x}"  # another picture has another name, so no cache mistakes it
        )
        drawn.makers[name] = partial(_picture, seed)
        drawn.cases.extend(_cases(name, phantom))
        drawn.groups.extend(_groups(name, phantom, dice))
    return drawn


def _picture(seed: int) -> bytes:
    return png(draw(seed).pixels)


def _cases(name: str, phantom: Phantom) -> Iterator[Case]:
    """Gives what can be asked about it, in a few wordings, with short answers: is it there, what, where, how many."""
    asked = {
        question.text: question
        for turn in range(TURNS)
        for question in questions(phantom, TURNS * phantom.seed + turn, TAUGHT)
        if question.truth and not question.held_out
    }
    for question in asked.values():
        form = "closed" if question.closed else "open"
        among = _among(phantom, question)
        answer = question.truth.replace("_", " ")
        yield Case(
            image=name,
            question=question.text,
            answer=answer.capitalize() if question.closed else answer,
            kind=f"phantom/{among if question.kind in OF_A_SCENE else 'all'}/{question.kind}/{form}",
            meaning=f"phantom/{among}/{question.kind}/{form}",
            group=name,
            subject=f"{phantom.region}/{phantom.modality}",
        )


def _among(phantom: Phantom, question: Question) -> str:
    """Names the pictures of which the same can be asked."""
    if question.kind in OF_ALL:
        return "all"
    scene = str(phantom.scene)
    return scene if question.kind == "kind" else f"{scene}-{question.about}"


def _groups(name: str, phantom: Phantom, dice: Generator) -> Iterator[Group]:
    asked = [question for question in questions(phantom, phantom.seed, TAUGHT) if not question.held_out]
    for place in dice.permutation(len(asked))[:ASKED]:
        given = answers(phantom, asked[place], phantom.seed)
        chosen = [given[index] for index in dice.permutation(len(given))[:ANSWERS]]
        graded = {
            answer.text: Answer(answer.text, tuple(answer.grades[dimension] for dimension in DIMENSIONS))
            for answer in chosen
        }
        yield Group(name, asked[place].text, tuple(graded.values()), exact=True)
