"""Which rows share a forward."""

import pytest

from medreward.backends.base import CostModel
from medreward.backends.torch_vlm.packing import ALIKE_TOKENS, ENOUGH, ROW_TOKENS, RUN_TOKENS, pack, runs


def test_rows_of_like_lengths_share_a_run_and_little_of_it_is_padding() -> None:
    lengths = [1 + 7 * i * i % 384 for i in range(1, 300)]
    found = list(runs(lengths, [270] * len(lengths), RUN_TOKENS))
    assert sorted(index for run in found for index in run) == [*range(len(lengths))]
    for run in found:
        longest = max(lengths[i] for i in run)
        assert (270 + longest) * len(run) <= RUN_TOKENS
        filled = sum(lengths[i] for i in run)
        assert filled > longest * len(run) / 1.2 or filled < 2 * ENOUGH


@pytest.mark.parametrize(("behind", "expected"), [([0, 0], [[0, 1]]), ([0, RUN_TOKENS], [[0], [1]])])
def test_what_rows_look_back_on_fills_a_run_too(behind: list[int], expected: list[list[int]]) -> None:
    assert list(runs([10, 10], behind, RUN_TOKENS)) == expected


def test_a_row_ends_before_answers_see_too_many_others() -> None:
    lengths = (ROW_TOKENS // 2, ROW_TOKENS // 2, 1, 3 * ROW_TOKENS)
    answers = [[place] * length for place, length in enumerate(lengths)]
    assert [row.answers for row in pack(answers, (), ROW_TOKENS)] == [[0, 1], [2], [3]]


def test_of_answers_that_begin_alike_the_beginning_is_there_once() -> None:
    whole = [*range(100)]
    answers = [
        whole,
        whole[20:],
        *([*whole[:k], *whole[k + 20 :]] for k in (20, 40, 60, 80)),
        whole,
        whole[:ALIKE_TOKENS],
    ]
    (row,) = pack(answers, (), ROW_TOKENS)
    assert len(row.ids) == 100 + 80 + 60 + 40 + 20 + 1 + 1 + 1
    assert [row.ids[last] for last in row.lasts] == [answer[-1] for answer in answers]
    assert [row.offsets[last] for last in row.lasts] == [len(answer) - 1 for answer in answers]


def test_steps_of_two_answers_that_begin_alike_share_each_its_own_answer() -> None:
    """So that what is run of an answer does not grow with the number of its steps."""
    beginning, end = [*range(20)], [1000]
    one, other = [*beginning, *range(100, 200)], [*beginning, *range(300, 400)]
    answers = [[*text[:k], *([] if k == 120 else end)] for text in (one, other) for k in (120, 90, 60, 30)]
    rows = pack(answers, (), ROW_TOKENS)
    assert sum(len(row.ids) for row in rows) == 2 * (120 + 3)
    costs = CostModel(shares_prompt=True, alike=ALIKE_TOKENS).answers(50, answers)
    assert costs == [120, 1, 1, 1] * 2
    assert CostModel(shares_prompt=True).answers(50, answers) == [*map(len, answers)]


@pytest.mark.parametrize(("tails", "most"), [([[7]], ROW_TOKENS), ((), 0)])
def test_with_tails_and_where_answers_run_alone_nothing_is_shared(tails: list[list[int]], most: int) -> None:
    answers = [[*range(60)], [*range(59)]]
    assert sum(len(row.ids) for row in pack(answers, tails, most)) == 119 + 2 * len(tails)
