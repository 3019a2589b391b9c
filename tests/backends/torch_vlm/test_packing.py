"""Which rows share a forward."""

import pytest

from medreward.backends.torch_vlm.packing import ENOUGH, ROW_TOKENS, RUN_TOKENS, pack, runs


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
    answers = [[0] * length for length in (ROW_TOKENS // 2, ROW_TOKENS // 2, 1, 3 * ROW_TOKENS)]
    assert [row.answers for row in pack(answers, (), ROW_TOKENS)] == [[0, 1], [2], [3]]
