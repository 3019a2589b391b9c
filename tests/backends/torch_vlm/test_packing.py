"""Which answers run together, and which forward they share."""

import pytest

from medreward.backends.base import CostModel
from medreward.backends.torch_vlm.packing import ALIKE_TOKENS, ENOUGH, Branch, bundles, filled, padded_runs, tokens

RUN = 1024


def test_prompts_of_like_lengths_share_a_run_and_little_of_it_is_padding() -> None:
    lengths = [100 + 7 * i * i % 384 for i in range(1, 300)]
    found = list(padded_runs(lengths, 4096))
    assert sorted(index for run in found for index in run) == [*range(len(lengths))]
    for run in found:
        longest = max(lengths[i] for i in run)
        assert longest * len(run) <= 4096
        total = sum(lengths[i] for i in run)
        assert total > longest * len(run) / 1.2 or total < 2 * ENOUGH


def test_where_bits_count_prompts_of_equal_lengths_alone_share_a_run() -> None:
    assert list(padded_runs([3, 2, 3, 4], RUN, equal=True)) == [[1], [0, 2], [3]]


@pytest.mark.parametrize(("most", "expected"), [(10, [[0, 1], [2], [3, 4]]), (0, [[0], [1], [2], [3], [4]])])
def test_a_run_ends_before_it_has_too_many_tokens(most: int, expected: list[list[int]]) -> None:
    assert [[*run] for run in filled([5, 5, 20, 1, 9], most)] == expected


def test_of_answers_that_begin_alike_the_beginning_is_there_once() -> None:
    whole = [*range(100)]
    answers = [
        whole,
        whole[20:],
        *([*whole[:k], *whole[k + 20 :]] for k in (20, 40, 60, 80)),
        whole,
        whole[:ALIKE_TOKENS],
    ]
    found = bundles(answers, (), RUN)
    assert sum(map(tokens, found)) == 100 + 80 + 60 + 40 + 20 + 1 + 1 + 1
    for bundle in found:
        for branch in bundle:
            trunk = bundle[branch.parent or 0].ids
            assert [*trunk[: branch.start], *branch.ids] == answers[branch.answer]


def test_steps_of_two_answers_that_begin_alike_share_each_its_own_answer() -> None:
    """So that what is run of an answer does not grow with the number of its steps."""
    beginning, end = [*range(20)], [1000]
    one, other = [*beginning, *range(100, 200)], [*beginning, *range(300, 400)]
    answers = [[*text[:k], *([] if k == 120 else end)] for text in (one, other) for k in (120, 90, 60, 30)]
    assert sum(map(tokens, bundles(answers, (), RUN))) == 2 * (120 + 3)
    costs = CostModel(shares_prompt=True, alike=ALIKE_TOKENS).answers(50, answers)
    assert costs == [120, 1, 1, 1] * 2
    assert CostModel(shares_prompt=True).answers(50, answers) == [*map(len, answers)]


def test_answers_that_begin_alike_add_no_more_than_a_run_to_the_first() -> None:
    answers = [[*range(500), 1000 + place] for place in range(1500)]
    found = bundles(answers, (), RUN)
    assert max(map(tokens, found)) <= 501 + RUN
    assert sum(map(tokens, found)) == 1500 + 500 * len(found)


def test_tails_follow_their_answer_and_are_what_is_asked_for() -> None:
    assert bundles([[1, 2], [3]], [[7], [8, 9]], RUN) == [
        [Branch(0, [1, 2], is_end=False), Branch(0, [7], 2, 0), Branch(0, [8, 9], 2, 0)],
        [Branch(1, [3], is_end=False), Branch(1, [7], 1, 0), Branch(1, [8, 9], 1, 0)],
    ]


def test_where_bits_count_no_answer_sees_another() -> None:
    answers = [[*range(60)], [*range(59)]]
    assert bundles(answers, (), 0) == [[Branch(0, answers[0])], [Branch(1, answers[1])]]
