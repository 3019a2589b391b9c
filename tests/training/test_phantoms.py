"""Phantoms as training data: what is held out for measuring stays out, and the grades come with the answers."""

from pathlib import Path

import pytest

from medreward.phantoms.ask import HELD_OUT_PHRASINGS, PHRASINGS
from medreward.phantoms.draw import HELD_OUT_FAMILIES
from medreward.training.corpus import read_corpus
from medreward.training.phantoms import Drawn, draw_phantoms
from training.shapes import tiny_recipe


@pytest.fixture(scope="module")
def drawn(encoder: Path) -> Drawn:
    return draw_phantoms(tiny_recipe(encoder, phantoms=40))


def test_held_out_families_and_phrasings_are_not_taught(drawn: Drawn) -> None:
    facts = {(case.question, case.answer) for case in drawn.cases}
    assert ("What sort of finding is there?", "mass") in facts
    assert not any(("What sort of finding is there?", family) in facts for family in HELD_OUT_FAMILIES)
    plain = {PHRASINGS[kind][place] for kind, places in HELD_OUT_PHRASINGS.items() for place in places}
    assert not any(group.question in plain for group in drawn.groups)


def test_the_same_seed_draws_the_same(drawn: Drawn, encoder: Path) -> None:
    again = draw_phantoms(tiny_recipe(encoder, phantoms=40))
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
