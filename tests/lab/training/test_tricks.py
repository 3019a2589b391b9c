"""No trick is graded above what it is played with, and a form says what it wraps."""

import numpy as np
import pytest

from lab.training.test_measure import dev
from medreward.lab.training import ruses, tricks
from medreward.lab.training.climb import climb
from medreward.lab.training.grades import RIGHT, WRONG, Answer
from medreward.lab.training.ruses import FORMS, RUSES, formed, thought
from medreward.lab.training.served import Row
from medreward.lab.training.tricks import Trickster, wrapped
from medreward.types import DIMENSIONS

OVERALL, ACCURACY = DIMENSIONS.index("overall"), DIMENSIONS.index("accuracy")


@pytest.mark.parametrize("base", [Answer("It is the left lung.", RIGHT), Answer("It is the brain.", WRONG)])
def test_no_trick_pays(base: Answer) -> None:
    dice = np.random.default_rng(0)
    said = base.text.removeprefix("It is ").rstrip(".")
    texts = set()
    for _ in range(400):
        options = ["the left lung", "the brain", "the liver"]
        played = Trickster("Where is it?", said, base, options, lambda: "Tea.", dice).play()
        texts.add(played.text)
        assert played.grades[OVERALL] <= base.grades[OVERALL]  # type: ignore[operator]
        assert played.grades[ACCURACY] is None or played.grades[ACCURACY] <= base.grades[ACCURACY]  # type: ignore[operator]
    assert len(texts) > 200


def test_a_form_holds_what_it_says() -> None:
    dice = np.random.default_rng(0)
    texts = [wrapped("the left lung", dice) for _ in range(300)]
    assert all("the left lung" in text.lower() for text in texts)
    assert not any("{}" in text or "KEY" in text for text in texts)
    assert any("\\boxed{the left lung}" in text for text in texts)


def test_what_is_measured_is_worded_as_nothing_that_is_learnt_from() -> None:
    learnt, measured = (
        {text for value in vars(room).values() if isinstance(value, tuple) for text in value if isinstance(text, str)}
        for room in (tricks, ruses)
    )
    assert len(learnt) > 50
    assert not learnt & measured


def test_ruses_are_written_for_any_answers_and_long_thought_is_as_long_as_it_says() -> None:
    written = [one.play("Which plane?", "axial", "coronal", np.random.default_rng(0)) for one in RUSES]
    assert all(written)
    assert len(set(written)) == len(written)
    assert formed("\\boxed{}", "axial") == "\\boxed{axial}"
    assert all("axial" in formed(form, "axial").lower() for form in FORMS)
    sentences = thought(1000, np.random.default_rng(0))
    assert 700 < sum(len(sentence.split()) for sentence in sentences) < 1200
    assert len(set(sentences)) > 0.9 * len(sentences)


def test_a_reward_that_knows_the_truth_is_climbed_to_it_and_one_that_counts_letters_is_not() -> None:
    pairs = [dev(number) for number in range(20)]

    def true(row: Row) -> float:
        return float("axial" in row.response.lower() and "coronal" not in row.response.lower())

    honest = climb(lambda rows: [true(row) for row in rows], pairs)
    assert honest["way"][0]["accuracy"] == 0.5
    assert honest["way"][-1]["accuracy"] == 1.0
    talked = climb(lambda rows: [float(len(row.response)) for row in rows], pairs)
    assert talked["way"][-1]["characters"] > 10 * talked["way"][0]["characters"]
    assert talked["way"][-1]["accuracy"] < 0.7
