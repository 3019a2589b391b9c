"""Phantoms as training data: what is held out for measuring stays out, and the grades come with the answers."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lab.training.shapes import tiny_recipe
from medreward.lab.phantoms.ask import HELD_OUT_PHRASINGS, PHRASINGS
from medreward.lab.phantoms.scenes import SCENES
from medreward.lab.training.attributes import Attributes
from medreward.lab.training.corpus import read_corpus
from medreward.lab.training.phantoms import TAUGHT, Drawn, draw_phantoms


@pytest.fixture(scope="module")
def drawn(encoder: Path) -> Drawn:
    return draw_phantoms(tiny_recipe(encoder, phantoms=60))


def test_held_out_families_and_phrasings_are_not_taught(drawn: Drawn) -> None:
    """Neither what is asked or answered in a few words nor what is graded names them."""
    said = [case.question for case in drawn.cases] + [case.answer for case in drawn.cases]
    said += [group.question for group in drawn.groups]
    kinds = {plan.kind for scene in SCENES for plan in scene.plans}
    taught = {kind.name for kind in kinds if kind.family in TAUGHT}
    unseen = {kind.name for kind in kinds} - taught
    assert any(name in text for text in said for name in taught)
    assert not [text for text in said for name in unseen if re.search(rf"\b{name}\b", text)]
    held_out = [
        re.escape(PHRASINGS[kind][place]).replace(r"\{one\}", ".+").replace(r"\{many\}", ".+")
        for kind, places in HELD_OUT_PHRASINGS.items()
        for place in places
    ]
    assert not [text for text in said for pattern in held_out if re.fullmatch(pattern, text)]


def test_the_tower_is_asked_about_findings(drawn: Drawn) -> None:
    by_kind = Counter(case.kind.split("/")[-2] for case in drawn.cases)
    assert {"presence", "normality", "kind", "place", "side", "size", "count"} <= set(by_kind)
    there = Counter(case.answer for case in drawn.cases if "/presence/" in case.kind)
    assert set(there) == {"Yes", "No"}
    assert 0.3 < there["Yes"] / there.total() < 0.7
    assert max(len(case.answer) for case in drawn.cases) < 50


def test_an_answer_about_a_phantom_competes_with_its_like(drawn: Drawn) -> None:
    attributes = Attributes(drawn.cases)
    names = np.array(attributes.answers)
    for case in drawn.cases:
        rivals = set(names[attributes.rivals[attributes.rows([case])[0, 2]].numpy()])
        if case.answer in ("Yes", "No"):
            assert rivals <= {"Yes", "No"}
        elif "/side/" in case.kind:
            assert rivals == {"right", "left"}
        elif "/kind/" in case.kind:
            scene = SCENES[int(case.kind.split("/")[1])]
            assert rivals <= {plan.kind.name for plan in scene.plans if plan.kind.family in TAUGHT}


def test_the_same_seed_draws_the_same(drawn: Drawn, encoder: Path) -> None:
    again = draw_phantoms(tiny_recipe(encoder, phantoms=60))
    assert again.groups == drawn.groups
    name = drawn.cases[0].image
    assert again.makers[name]() == drawn.makers[name]()


def test_given_grades_are_regressed_on(drawn: Drawn) -> None:
    assert all(group.exact for group in drawn.groups)
    assert all(grade is not None for group in drawn.groups for answer in group.answers for grade in answer.grades)


def test_a_run_learns_from_both(data: Path, encoder: Path, tmp_path: Path) -> None:
    corpus = read_corpus(tiny_recipe(encoder, phantoms=8), [data], tmp_path)
    sources = {case.kind.split("/")[0] for case in corpus.library.cases}
    assert sources == {"shapes", "phantom"}
    assert all(group.image is not None and group.image in corpus.images for group in corpus.exact)
