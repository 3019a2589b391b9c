"""No image is in two parts, and graded answers to one question are pairs to measure on."""

from math import isnan, nan

import pytest

from medreward.errors import ConfigurationError
from medreward.lab.training.served import Picture
from medreward.lab.vlm.examples import UNKNOWN, Example, data_digest, held_pairs, split
from medreward.lab.vlm.recipe import Data


def pair(image: int, question: str = "Why?") -> Example:
    return Example("", Picture(str(image), bytes), question, ("a", "b"), (1.0,) * 6)


def graded(answer: str, *grades: float) -> Example:
    return Example("", Picture("one", bytes), "Why?", (answer,), grades=(*grades, *UNKNOWN[len(grades) :]))


def test_rows_of_one_image_stay_together() -> None:
    rows = [pair(image, question) for image in range(20) for question in ("Why?", "How?")]
    parts = split(rows, Data(dev_share=0.2, held_share=0.3), seed=1)
    images = [{row.subject for row in part} for part in (parts.train, parts.dev, parts.held)]
    assert [len(each) for each in images] == [10, 4, 6]
    assert len(set.union(*images)) == 20
    with pytest.raises(ConfigurationError, match="2 images are too few"):
        split(rows[:4], Data(), seed=1)


def test_graded_answers_to_one_question_are_compared_where_both_are_graded() -> None:
    (made,) = held_pairs([graded("good", 0.9, 0.5, 0.1), graded("bad", 0.2, 0.5, nan)], most=9)
    assert made.answers == ("good", "bad")
    assert made.wins[:2] == (1.0, 0.5)
    assert all(map(isnan, made.wins[2:]))
    with pytest.raises(ConfigurationError, match="no two answers to one question"):
        held_pairs([graded("alone", 0.5)], most=9)


def test_the_digest_of_data_does_not_depend_on_their_order_but_on_every_label() -> None:
    rows = [pair(1), pair(2)]
    assert data_digest(rows) == data_digest(rows[::-1])
    assert data_digest(rows) != data_digest([pair(1), pair(3)])
