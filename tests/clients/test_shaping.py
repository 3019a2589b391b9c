"""Shaping: what every trainer's user may rely on, whatever the numbers are."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medreward.clients import Score
from medreward.clients.shaping import (
    MaybeRewards,
    Rewards,
    Shaping,
    clipped,
    debiased,
    length_correlation,
    normalised,
    normalised_sum,
    penalised,
    potential_differences,
    viewpoint_advantages,
)
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow

NUMBERS = st.integers(-800, 800).map(lambda n: n / 100)  # apart enough for their differences to be no rounding errors
MAYBE = st.none() | NUMBERS
ROWS = st.lists(st.tuples(MAYBE, st.integers(0, 3), st.integers(0, 500)), min_size=1, max_size=24)
WEIGHTS = {"accuracy": 2.0, "creativity": -1.0, "overall": 0.5}
Row = tuple[float | None, int, int]


def scored(logits: dict[str, float], weights: dict[str, float] = WEIGHTS, doubt: float | None = None) -> Score:
    six = dict.fromkeys(DIMENSIONS, 0.0) | logits
    reward = sum(weight * six[dimension] for dimension, weight in weights.items())
    return Score(reward, six, six, None if doubt is None else dict.fromkeys(DIMENSIONS, doubt))


@st.composite
def scores(draw: st.DrawFn, doubt: float | None = None) -> Score:
    six = draw(st.none() | st.lists(NUMBERS, min_size=6, max_size=6))
    return scored(dict(zip(DIMENSIONS, six, strict=True)), doubt=doubt) if six else Score(error="too_long")


def known(score: Score) -> dict[str, float]:
    """Logits of the dimensions that the model has."""
    return {name: logit for name, logit in (score.logits or {}).items() if logit is not None}


def columns(rows: list[Row]) -> tuple[Rewards, list[int], list[int]]:
    return [r for r, _, _ in rows], [g for _, g, _ in rows], [n for _, _, n in rows]


def in_group(values: MaybeRewards, groups: list[int], group: int) -> list[float]:
    return [value for value, g in zip(values, groups, strict=True) if g == group and value is not None]


def near(values: MaybeRewards) -> Any:
    return [None if value is None else pytest.approx(value, abs=1e-6) for value in values]


EVERY: dict[str, Callable[[list[Row]], Rewards]] = {
    "normalised": lambda rows: normalised(columns(rows)[0], columns(rows)[1]),
    "debiased": lambda rows: debiased(columns(rows)[0], columns(rows)[2], columns(rows)[1]),
    "clipped": lambda rows: clipped(columns(rows)[0], -1, 1),
}


@pytest.mark.parametrize("name", EVERY)
@given(rows=ROWS)
def test_none_stays_none_and_numbers_stay_numbers(name: str, rows: list[Row]) -> None:
    shaped = EVERY[name](rows)
    assert [reward is None for reward in shaped] == [reward is None for reward, _, _ in rows]


@pytest.mark.parametrize("name", EVERY)
@given(rows=ROWS)
def test_none_counts_in_no_statistic(name: str, rows: list[Row]) -> None:
    shaped = EVERY[name](rows)
    alone = EVERY[name]([row for row in rows if row[0] is not None])
    assert [reward for reward in shaped if reward is not None] == alone


@pytest.mark.parametrize("name", EVERY)
@given(rows=ROWS, seed=st.integers(0, 99))
def test_the_order_of_answers_does_not_matter(name: str, rows: list[Row], seed: int) -> None:
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    shaped = EVERY[name](rows)
    assert EVERY[name]([rows[i] for i in order]) == near([shaped[i] for i in order])


@given(rows=ROWS, shift=NUMBERS, scale=st.floats(0.01, 100))
def test_normalised_forgets_shift_and_scale(rows: list[Row], shift: float, scale: float) -> None:
    rewards, groups, _ = columns(rows)
    moved = [None if reward is None else shift + scale * reward for reward in rewards]
    assume(all(len(set(in_group(moved, groups, g))) == len(set(in_group(rewards, groups, g))) for g in groups))
    assert normalised(moved, groups) == near(normalised(rewards, groups))


@given(rows=ROWS)
def test_normalised_groups_have_mean_0_and_deviation_1(rows: list[Row]) -> None:
    rewards, groups, _ = columns(rows)
    shaped = normalised(rewards, groups)
    for group in set(groups):
        before, after = in_group(rewards, groups, group), in_group(shaped, groups, group)
        assert sum(after) == pytest.approx(0, abs=1e-6)
        differ = len(set(before)) > 1
        assert sum(value * value for value in after) == pytest.approx(len(after) - 1 if differ else 0, abs=1e-6)


def test_a_constant_group_is_0_to_the_last_bit() -> None:
    assert normalised([0.1, 0.1, 0.1, None, 7.0], ["a", "a", "a", "a", "b"]) == [0.0, 0.0, 0.0, None, 0.0]


@given(
    rows=st.lists(st.tuples(scores(), st.integers(0, 2)), min_size=1, max_size=16),
    scale=st.floats(0.1, 50),
    shift=NUMBERS,
)
def test_gdpo_weighs_dimensions_not_their_spread(rows: list[tuple[Score, int]], scale: float, shift: float) -> None:
    answers, groups = [score for score, _ in rows], [group for _, group in rows]
    louder = [
        scored(dict(six) | {"accuracy": shift + scale * six["accuracy"]}) if (six := known(score)) else score
        for score in answers
    ]
    shaped = normalised_sum(answers, groups, WEIGHTS)
    assert normalised_sum(louder, groups, WEIGHTS) == near(shaped)
    assert [reward is None for reward in shaped] == [score.reward is None for score in answers]


def test_gdpo_tells_apart_what_the_sum_does_not() -> None:
    """Two ways to trade one dimension against another: equal rewards, different merit within the group."""
    weights = {"accuracy": 1.0, "relevance": 1.0}
    answers = [scored({"accuracy": a, "relevance": r}, weights) for a, r in ((1, 0), (0, 1), (0, 0), (0, 0.5))]
    raw = Shaping()(answers, [0] * 4, [1] * 4, weights)
    shaped = Shaping(normalise_dimensions=True)(answers, [0] * 4, [1] * 4, weights)
    assert raw[0] == raw[1]
    assert shaped[0] is not None
    assert shaped[1] is not None
    assert shaped[0] != pytest.approx(shaped[1], abs=0.01)


@given(
    lengths=st.lists(st.integers(0, 900), min_size=8, max_size=24),
    slope=st.integers(-50, 50),
    height=st.lists(NUMBERS, min_size=2, max_size=2),
)
def test_debiasing_leaves_nothing_of_a_pure_length_bias(lengths: list[int], slope: int, height: list[float]) -> None:
    groups = [i % 2 for i in range(len(lengths))]
    assume(all(len(set(lengths[g::2])) > 1 for g in (0, 1)))
    rewards = [height[g] + slope / 100 * length for g, length in zip(groups, lengths, strict=True)]
    shaped = debiased(rewards, lengths, groups)
    for group in (0, 1):
        before, after = in_group(rewards, groups, group), in_group(shaped, groups, group)
        assert after == near([sum(before) / len(before)] * len(after))


@given(
    rows=st.lists(
        st.tuples(NUMBERS, st.integers(0, 1), st.integers(0, 500)),
        min_size=6,
        max_size=24,
        unique_by=lambda row: row[2],
    ),
    shift=NUMBERS,
    slope=st.integers(-50, 50),
)
def test_debiasing_does_not_see_a_length_bias_that_is_added(rows: list[Row], shift: float, slope: int) -> None:
    """Within groups; the mean of a group moves with what was added, as it should."""
    rewards, groups, lengths = columns(rows)
    shaped = debiased(rewards, lengths, groups)
    biased = [None if r is None else r + shift + slope / 100 * n for r, n in zip(rewards, lengths, strict=True)]
    again = debiased(biased, lengths, groups)
    for group in set(groups):
        one, other = in_group(shaped, groups, group), in_group(again, groups, group)
        assert [value - one[0] for value in one] == near([value - other[0] for value in other])


def test_a_question_that_asks_for_long_answers_is_no_length_bias() -> None:
    rewards, lengths, groups = [1.0, 1.2, 1.1, 5.0, 5.2, 5.1], [10, 11, 12, 500, 501, 502], [0, 0, 0, 1, 1, 1]
    within = debiased(rewards, lengths, groups)
    assert [r is not None and abs(r - raw) < 0.06 for r, raw in zip(within, rewards, strict=True)] == [True] * 6


def test_two_answers_are_not_explained_away() -> None:
    assert debiased([1.0, 2.0, None], [10, 20, 30], [0, 0, 0]) == [1.0, 2.0, None]
    assert debiased([1.0, 2.0, 5.0, 3.0], [7, 7, 7, 7], [0] * 4) == [1.0, 2.0, 5.0, 3.0]


@given(rows=ROWS)
def test_the_correlation_with_length_is_that_within_groups(rows: list[Row]) -> None:
    rewards, groups, lengths = columns(rows)
    moved = [None if reward is None else 3 * reward + 7 * group for reward, group, _ in rows]
    longer = [length + 1000 * group for _, group, length in rows]
    expected = length_correlation(rewards, lengths, groups)
    assert length_correlation(moved, longer, groups) == (expected and pytest.approx(expected, abs=1e-6))
    assert expected is None or -1.000001 < expected < 1.000001


def test_a_reward_that_is_length_correlates_wholly() -> None:
    lengths, groups = [1, 5, 3, 900, 700], [0, 0, 0, 1, 1]
    assert length_correlation([length / 10 for length in lengths], lengths, groups) == pytest.approx(1)
    assert length_correlation([-length / 10 for length in lengths], lengths, groups) == pytest.approx(-1)
    assert length_correlation([1.0, 1.0, 4.0, None, 2.0], [1, 2, 2, 50, 2], groups) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rewards", "lengths"),
    [([0.1, 0.1, 0.1, 2.0], [1, 2, 3, 4]), ([1.0, 2.0, 3.0, 4.0], [7, 7, 7, 8]), ([None] * 4, [1, 2, 3, 4])],
)
def test_without_a_difference_within_any_group_there_is_no_correlation(rewards: Rewards, lengths: list[int]) -> None:
    assert length_correlation(rewards, lengths, [0, 0, 0, 1]) is None


def test_a_dimension_that_the_model_has_not_is_never_a_number() -> None:
    def of_overall(reward: float | None, overall: float) -> Score:
        six = dict.fromkeys(DIMENSIONS) | {"overall": overall}
        return Score(reward, six, six, dict.fromkeys(DIMENSIONS) | {"overall": 0.5})

    given, groups = [of_overall(1.0, 1.0), of_overall(3.0, 3.0)], [0, 0]
    alone = {"overall": 1.0, "accuracy": 0.0}
    assert [score.reward for score in penalised(given, alone, 2.0)] == [0.0, 2.0]
    assert normalised_sum(given, groups, alone) == near(normalised([1.0, 3.0], groups))
    both = {"overall": 1.0, "accuracy": 1.0}
    unrewarded = [of_overall(None, 1.0), of_overall(None, 3.0)]
    assert [score.reward for score in penalised(unrewarded, both, 2.0)] == [None, None]
    assert normalised_sum(unrewarded, groups, both) == [None, None]


@given(answers=st.lists(scores(doubt=0.25), min_size=1, max_size=9), k=st.floats(0, 4))
def test_the_penalty_is_k_times_the_weighted_uncertainty(answers: list[Score], k: float) -> None:
    lower = penalised(answers, WEIGHTS, k)
    expected = [None if score.reward is None else score.reward - k * 3.5 * 0.25 for score in answers]
    assert [score.reward for score in lower] == near(expected)
    for score in lower:
        if (six := known(score)) and score.reward is not None:  # and the logits say the same
            assert sum(w * six[d] for d, w in WEIGHTS.items()) == pytest.approx(score.reward, abs=1e-6)


def test_a_model_without_uncertainty_cannot_be_penalised() -> None:
    with pytest.raises(ValueError, match="no uncertainty"):
        Shaping(uncertainty_penalty=1)([scored({"overall": 1})], [0], [1], WEIGHTS)
    unscored = Score(error="deadline")
    assert Shaping(uncertainty_penalty=1)([unscored], [0], [1], WEIGHTS) == [None]


@given(answers=st.lists(scores(), max_size=9))
def test_without_steps_rewards_are_the_servers_own(answers: list[Score]) -> None:
    rewards = [score.reward for score in answers]
    assert Shaping()(answers, [0] * len(answers), [1] * len(answers)) == rewards


def test_steps_follow_one_another() -> None:
    answers = [scored({"overall": value}, doubt=value / 10) for value in (1.0, 2.0, 3.0, 40.0)]
    answers.append(Score(error="too_long"))
    groups, lengths = [0] * 5, [3, 1, 4, 1, 5]
    rewards: Rewards = [score.reward for score in penalised(answers, WEIGHTS, 0.1)]
    rewards = clipped(normalised(debiased(rewards, lengths, groups), groups), -1, 1)
    every = Shaping(uncertainty_penalty=0.1, debias_length=True, normalise_group=True, clip=(-1, 1))
    assert every(answers, groups, lengths, WEIGHTS) == near(rewards)
    assert max(reward for reward in rewards if reward is not None) == 1


@pytest.mark.parametrize("step", [{"uncertainty_penalty": 1.0}, {"normalise_dimensions": True}])
def test_what_adds_dimensions_up_itself_needs_weights(step: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="weights"):
        Shaping(**step)([scored({"overall": 1}, doubt=0.1)], [0], [1])


@pytest.mark.parametrize("step", [{"uncertainty_penalty": -1.0}, {"clip": (1.0, -1.0)}, {"clip": (1.0, 1.0)}])
def test_a_step_that_makes_no_sense_is_refused(step: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(step))):
        Shaping(**step)


def test_potential_differences_by_hand_and_their_sum() -> None:
    potentials = [0.5, 2.0, 1.0, 3.0]  # of the empty answer, and of what each of three steps leaves
    assert potential_differences(potentials) == [1.5, -1.0, 2.0]
    assert potential_differences(potentials, 0.5) == [0.5 * 2.0 - 0.5, 0.5 * 1.0 - 2.0, 0.5 * 3.0 - 1.0]
    discounted = sum(0.5**t * (step or 0) for t, step in enumerate(potential_differences(potentials, 0.5)))
    assert discounted == 0.5**3 * 3.0 - 0.5  # whatever lay between


def test_a_longer_way_to_the_same_answer_earns_no_more() -> None:
    long, short = potential_differences([0.0, 1.0, 2.0, 2.0, 2.0]), potential_differences([0.0, 2.0])
    assert sum(filter(None, long)) == sum(filter(None, short)) == 2.0


def test_a_step_without_a_score_leaves_no_difference_on_either_side() -> None:
    assert potential_differences([0.0, None, 2.0, 5.0]) == [None, None, 3.0]
    assert potential_differences([1.0]) == potential_differences([]) == []


@pytest.mark.parametrize("gamma", [0.0, -1.0, 1.1, math.nan])
def test_a_gamma_that_discounts_nothing_sensibly_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma"):
        potential_differences([0.0, 1.0], gamma)


def guided(first: float, second: float) -> Score:
    return Score(0.0, viewpoints={"safety": first, "talk": second}, viewpoint_spread=abs(first - second))


def test_advantages_by_guideline_are_those_worked_out_by_hand() -> None:
    scores = [guided(1, 10), guided(2, 0), Score(error="too_long"), guided(3, 20), guided(7, 5), guided(7, 5)]
    groups = ["a", "a", "a", "a", "b", "b"]
    # In group a, safety is 1, 2, 3: mean 2, deviation 1, so -1, 0, 1. Talk is 10, 0, 20: mean 10, deviation 10, so
    # 0, -1, 1. Their mean is -0.5, -0.5, 1. In group b nothing can be told apart.
    assert viewpoint_advantages(scores, groups) == [-0.5, -0.5, None, 1.0, 0.0, 0.0]
    assert viewpoint_advantages(scores, groups, {"safety": 3, "talk": 1}) == [-0.75, -0.25, None, 1.0, 0.0, 0.0]
    assert Shaping(normalise_viewpoints=True)(scores, groups, [1] * 6) == [-0.5, -0.5, None, 1.0, 0.0, 0.0]


def test_where_nothing_was_scored_there_are_no_advantages() -> None:
    assert viewpoint_advantages([Score(error="too_long")] * 2, [0, 0]) == [None, None]


@pytest.mark.parametrize(
    ("scores", "weights", "says"),
    [
        ([Score(1.0)], None, 'ask with viewpoints="all"'),
        ([Score(1.0, viewpoints={})], None, "a model that has some"),
        ([guided(1, 2)], {"saftey": 1}, "no viewpoint saftey: it has safety, talk"),
        ([guided(1, 2)], {"talk": -1, "safety": 2}, "must be 0 or more"),
        ([guided(1, 2)], {"talk": 0}, "more than 0"),
    ],
)
def test_advantages_that_cannot_be_meant_are_refused(
    scores: list[Score], weights: dict[str, float] | None, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        viewpoint_advantages(scores, [0] * len(scores), weights)
