"""What was said before is not read again, and long answers are read in parts that leave nothing out."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medreward.artifacts.manifest import Reading
from medreward.backends.reading import joined, parts, said_once

END = 99
READING = Reading(run=3, window=8, step=6)
STOP = 40
BY_SENTENCES = Reading(run=30, window=12, part=8, stops=(STOP, 41))


@pytest.mark.parametrize("times", [2, 3, 20])
def test_a_sentence_said_again_is_read_once(times: int) -> None:
    sentence = [5, 6, 7, 8]
    assert said_once(sentence * times, 3) == sentence


@pytest.mark.parametrize(("word", "read"), [([5], [5]), ([5, 6], [5, 6])])
def test_a_word_said_often_is_read_once(word: list[int], read: list[int]) -> None:
    assert said_once([1, 2, 3, *word * 20], 3) == [1, 2, 3, *read]


def test_what_differs_is_kept() -> None:
    assert said_once([1, 2, 3, 4, 1, 2, 5, 4], 3) == [1, 2, 3, 4, 1, 2, 5, 4]


def test_a_short_answer_is_one_window_as_it_is() -> None:
    assert parts([1, 2, 3, END], READING) == [[1, 2, 3, END]]
    assert parts([END], READING) == [[END]]


@given(st.lists(st.integers(0, 40), max_size=60))
def test_every_token_that_is_read_is_in_a_window_and_each_window_is_closed(said: list[int]) -> None:
    read = parts([*said, END], READING)
    assert all(len(part) <= READING.window + 1 and part[-1] == END for part in read)
    kept = said_once(said, READING.run)
    starts = [min(number * 6, max(0, len(kept) - READING.window)) for number in range(len(read))]
    found = {
        start + place: token for start, part in zip(starts, read, strict=True) for place, token in enumerate(part[:-1])
    }
    assert [found[place] for place in range(len(kept))] == kept


@given(st.lists(st.integers(30, 42), min_size=13, max_size=60))
def test_parts_hold_each_token_once_and_end_with_a_sentence_where_one_ends(said: list[int]) -> None:
    read = parts([*said, END], BY_SENTENCES)
    assert [token for part in read for token in part[:-1]] == said_once(said, 30)
    assert all(len(part) <= 9 and part[-1] == END for part in read)
    for part in read[:-1]:
        assert part[-2] in BY_SENTENCES.stops or (len(part) == 9 and not {*part} & {*BY_SENTENCES.stops})


def test_what_a_window_holds_is_read_at_once() -> None:
    assert parts([*range(11), STOP, END], BY_SENTENCES) == [[*range(11), STOP, END]]


def test_a_part_that_answers_weighs_more() -> None:
    read = np.zeros((2, 1, 6), np.float32)
    read[1, 0, [0, 4]] = 1.0, np.log(3)
    assert joined(read)[0, 0] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({}, "either step or part"),
        ({"part": 4, "step": 2}, "either step or part"),
        ({"step": 9}, "never be read"),
        ({"part": 9}, "no more than a window"),
    ],
)
def test_a_way_of_reading_that_makes_no_sense_is_refused(how: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Reading(run=3, window=8, **how)
