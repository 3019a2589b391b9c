"""Phantoms to learn from: their exact facts as cases, and the answers that come with their grades as groups.

Families and phrasings that are held out for measuring are left out here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator

from medreward.phantoms.answer import answers
from medreward.phantoms.ask import questions
from medreward.phantoms.draw import FAMILIES, HELD_OUT_FAMILIES, Phantom, draw, imagine
from medreward.training import recipe
from medreward.training.cases import Case, hash_of
from medreward.training.grades import Answer, Group
from medreward.training.images import Maker, png
from medreward.types import DIMENSIONS

FIRST_SEED = 1_000_000  # those below are for measuring
TAUGHT = tuple(family for family in FAMILIES if family not in HELD_OUT_FAMILIES)
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
        drawn.cases.extend(_case(name, phantom, *fact) for fact in _facts(phantom))
        drawn.groups.extend(_groups(name, phantom, dice))
    return drawn


def _picture(seed: int) -> bytes:
    return png(draw(seed).pixels)


def _facts(phantom: Phantom) -> Iterator[tuple[str, str, str]]:
    """Kind of question, question, answer."""
    yield "modality", "How was this picture made?", phantom.modality
    yield "region", "Which region is shown?", phantom.region.replace("_", " ")
    if phantom.plane:
        yield "plane", "What is the plane of this picture?", phantom.plane
    yield "normal", "Is this picture normal?", "No" if phantom.findings else "Yes"
    for finding in phantom.findings[:1]:
        yield "finding", "What is found in this picture?", finding.kind
        yield "family", "What sort of finding is there?", finding.family
        yield "place", "Where is the finding?", finding.place
        if finding.side:
            yield "side", "On which side of the patient is the finding?", finding.side
        if finding.size_word:
            yield "size", "How large is the finding?", finding.size_word
        if finding.many:
            yield "count", "How many are there?", str(finding.count)


def _case(name: str, phantom: Phantom, kind: str, question: str, answer: str) -> Case:
    among = phantom.region if kind in ("finding", "place") else "all"
    closed = "closed" if kind == "normal" else "open"
    return Case(
        image=name,
        question=question,
        answer=answer,
        kind=f"phantom/{kind}/{closed}",
        meaning=f"phantom/{kind}-{among}/{closed}",
        group=name,
        subject=f"{phantom.region}/{phantom.modality}",
    )


def _groups(name: str, phantom: Phantom, dice: Generator) -> Iterator[Group]:
    asked = [question for question in questions(phantom, phantom.seed, TAUGHT) if not question.held_out]
    for place in dice.permutation(len(asked))[:ASKED]:
        given = answers(phantom, asked[place], phantom.seed)
        chosen = [given[index] for index in dice.permutation(len(given))[:ANSWERS]]
        graded = {
            answer.text: Answer(answer.text, tuple(answer.grades[dimension] for dimension in DIMENSIONS))
            for answer in chosen
        }
        yield Group(name, asked[place].text, tuple(graded.values()), name, exact=True)
