"""What was said before is not read again, and long answers are read in windows that leave nothing out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medreward.artifacts.manifest import Reading
from medreward.backends.reading import said_once, windows

END = 99
READING = Reading(run=3, window=8, step=6)


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
    assert windows([1, 2, 3, END], READING) == [[1, 2, 3, END]]
    assert windows([END], READING) == [[END]]


@given(st.lists(st.integers(0, 40), max_size=60))
def test_every_token_that_is_read_is_in_a_window_and_each_window_is_closed(said: list[int]) -> None:
    read = windows([*said, END], READING)
    assert all(len(part) <= READING.window + 1 and part[-1] == END for part in read)
    kept = said_once(said, READING.run)
    starts = [min(number * READING.step, max(0, len(kept) - READING.window)) for number in range(len(read))]
    found = {
        start + place: token for start, part in zip(starts, read, strict=True) for place, token in enumerate(part[:-1])
    }
    assert [found[place] for place in range(len(kept))] == kept


def test_windows_that_would_leave_something_out_are_refused() -> None:
    with pytest.raises(ValueError, match="never be read"):
        Reading(run=3, window=8, step=9)
