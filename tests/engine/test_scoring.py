import math

import numpy as np
import pytest

from medreward.artifacts.manifest import Calibration
from medreward.engine.scoring import Scoring, contribution
from medreward.errors import Code
from medreward.types import DIMENSIONS, Failed, Flag, Scored

CALIBRATION = {dimension: Calibration(median=0.5 * d, scale=1 + d) for d, dimension in enumerate(DIMENSIONS)}
ONE_HEAD = [[1.0, -2.0, 0.25, 8.0, 0.0, -1.0]]


def scored(heads: list[list[float]], weights: dict[str, float] | None = None) -> Scored:
    result = Scoring(CALIBRATION, weights or {}).result(3, 1, np.array(heads, np.float32), ())
    assert isinstance(result, Scored)
    return result


def test_a_score_of_one_half_is_the_median_of_the_calibration_pool() -> None:
    medians = [[CALIBRATION[dimension].median for dimension in DIMENSIONS]]
    assert scored(medians).scores == (0.5,) * 6


def test_a_score_is_the_calibrated_sigmoid_of_its_logit() -> None:
    expected = [1 / (1 + math.exp(-(x - 0.5 * d) / (1 + d))) for d, x in enumerate(ONE_HEAD[0])]
    assert scored(ONE_HEAD).scores == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("x", [1e6, -1e6])
def test_far_logits_do_not_overflow(x: float) -> None:
    assert scored([[x] * 6]).scores == ((1.0,) if x > 0 else (0.0,)) * 6


def test_a_single_head_knows_no_uncertainty() -> None:
    assert scored(ONE_HEAD).uncertainty is None


def test_an_ensemble_answers_with_its_mean_and_its_deviation() -> None:
    result = scored([[1.0] * 6, [3.0] * 6])
    assert result.logits == (2.0,) * 6
    assert result.uncertainty == (1.0,) * 6


def test_a_strange_image_is_flagged_and_scored_all_the_same() -> None:
    known, strange = (scored([[*ONE_HEAD[0], beyond]]) for beyond in (-0.1, 0.1))
    assert (known.flags, strange.flags) == ((), (Flag.OUT_OF_SCOPE,))
    assert known.logits == strange.logits == scored(ONE_HEAD).logits


def test_a_reward_weighs_logits_as_given_and_ignores_what_is_not_named() -> None:
    assert scored(ONE_HEAD, {"accuracy": 2, "relevance": -0.5}).reward == 2 * 1.0 + 0.5 * 2.0


def test_a_dimension_that_the_model_has_not_is_none() -> None:
    two = {"relevance": CALIBRATION["relevance"], "overall": CALIBRATION["overall"]}
    result = Scoring(two, {"overall": 2.0, "accuracy": 0.0}).result(0, 0, np.array([[1, 4], [3, 4]], np.float32), ())
    assert isinstance(result, Scored)
    assert result.logits == (None, 2.0, None, None, None, 4.0)
    assert result.uncertainty == (None, 1.0, None, None, None, 0.0)
    whole = scored([[0, 2, 0, 0, 0, 4]]).scores
    assert result.scores == (None, whole[1], None, None, None, whole[5])
    assert result.reward == 8.0


def test_a_weight_on_a_dimension_that_the_model_has_not_leaves_no_reward() -> None:
    one = {"overall": CALIBRATION["overall"]}
    result = Scoring(one, {"overall": 2.0, "accuracy": 0.1}).result(0, 0, np.array([[4, 1]], np.float32), ())
    assert isinstance(result, Scored)
    assert (result.logits[5], result.uncertainty, result.reward) == (4.0, None, None)
    assert result.flags == (Flag.OUT_OF_SCOPE,)  # the column behind its dimensions


def test_a_contribution_has_no_number_where_either_side_has_none() -> None:
    two = Scoring({name: CALIBRATION[name] for name in ("relevance", "overall")}, {"overall": 2.0})
    whole, less = (two.result(0, 0, np.array([row], np.float32), ()) for row in ([1, 4], [3, 1]))
    assert isinstance(whole, Scored)
    part = contribution(5, 9, whole, less)
    assert (part.start, part.end, part.logits) == (5, 9, (None, -2.0, None, None, None, 3.0))
    assert part.reward == 6.0
    without_reward = Scoring({"overall": CALIBRATION["overall"]}, {"accuracy": 1.0})
    whole = without_reward.result(0, 0, np.array([[1]], np.float32), ())
    assert isinstance(whole, Scored)
    assert contribution(0, 1, whole, whole).reward is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_becomes_an_error(bad: float) -> None:
    result = Scoring(CALIBRATION, {}).result(
        3, 1, np.array([[1.0] * 6, [1.0, 1.0, bad, 1.0, 1.0, 1.0]], np.float32), (Flag.NO_IMAGE,)
    )
    assert isinstance(result, Failed)
    assert (result.error.code, result.item, result.response) == (Code.NON_FINITE_SCORE, 3, 1)
    assert result.flags == (Flag.NO_IMAGE,)
