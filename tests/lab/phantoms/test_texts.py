"""Questions and answers: balanced, complete, and telling nothing that the picture should tell."""

from collections import Counter

import pytest

from medreward.lab.phantoms.answer import Recipe, answers, graded
from medreward.lab.phantoms.ask import HELD_OUT_PHRASINGS, PHRASINGS, questions
from medreward.lab.phantoms.draw import FAMILIES, HELD_OUT_FAMILIES, imagine
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow


def test_every_question_has_an_answer_that_fails_each_dimension_and_one_that_fails_none() -> None:
    for seed in range(30):
        phantom = imagine(seed)
        for question in questions(phantom, seed):
            made = answers(phantom, question, seed)
            assert {name for answer in made for name in answer.fails} == set(DIMENSIONS)
            assert any(not answer.fails for answer in made)


def test_texts_have_no_unfilled_slots_and_end_as_sentences_do() -> None:
    for seed in range(60):
        phantom = imagine(seed)
        for question in questions(phantom, seed):
            assert not set("{}") & set(question.text)
            for answer in answers(phantom, question, seed):
                assert not set("{}") & set(answer.text)
                assert answer.text[-1] in ".?"
                assert "  " not in answer.text
                assert " None" not in answer.text


def test_a_wrong_answer_differs_from_the_right_one_in_what_was_asked() -> None:
    for seed in range(60):
        phantom = imagine(seed)
        for question in questions(phantom, seed):
            if question.kind != "description":
                assert question.truth in question.choices
                assert len(set(question.choices)) == len(question.choices) > 1


def test_the_truth_leans_to_no_value() -> None:
    truths: dict[str, Counter[str]] = {}
    for seed in range(4000):
        phantom = imagine(seed)
        for question in questions(phantom, seed):
            truths.setdefault(question.kind, Counter())[question.truth] += 1
    for kind in ("presence", "normality", "side", "count", "size", "plane", "modality", "region", "comparison"):
        counts = truths[kind].values()
        spread = max(counts) - min(counts)
        assert spread < 5 * (2 * sum(counts) / len(counts)) ** 0.5, (kind, truths[kind])


def test_held_out_wordings_are_apart_and_families_can_be_kept_out() -> None:
    training = [family for family in FAMILIES if family not in HELD_OUT_FAMILIES]
    assert all(held and len(held) < len(PHRASINGS[kind]) for kind, held in HELD_OUT_PHRASINGS.items())
    seen: set[tuple[str, int]] = set()
    held_out: set[tuple[str, int]] = set()
    for seed in range(400):
        phantom = imagine(seed, None, training[seed % len(training)])
        for question in questions(phantom, seed, training):
            (held_out if question.held_out else seen).add((question.kind, question.phrasing))
            if seed % 10 == 0:
                assert not any("cyst" in answer.text for answer in answers(phantom, question, seed))
    assert seen
    assert held_out
    assert not seen & held_out


def test_a_right_answer_beats_a_wrong_one_overall_whatever_else_it_lacks() -> None:
    poor = Recipe("right", "terse", "boilerplate", "hedged", "wandering")
    rich = Recipe("wrong", "full", "insight", "direct", "clean")
    assert graded(poor)["overall"] > graded(rich)["overall"]


def test_each_quality_comes_short_and_long() -> None:
    phantom = imagine(11, "brain", "mass")
    for question in questions(phantom, 1):
        lengths: dict[str, list[int]] = {}
        for answer in answers(phantom, question, 1):
            lengths.setdefault(answer.kind, []).append(len(answer.text))
        for kind in ("right", "right_full", "terse", "hedge", "refusal", "boilerplate"):
            short, long = lengths[kind]
            assert short < long
