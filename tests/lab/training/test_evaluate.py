from dataclasses import replace

import numpy as np
import pytest

from medreward.lab.training.calibrate import across_halves, calibration_error, levels, temperatures
from medreward.lab.training.corpus import DevPair
from medreward.lab.training.evaluate import DevLogits, report, share_of

PAIR = DevPair("one", "a.jpg", "What?", "good", "bad", "accuracy", ("accuracy", "overall"))


def logits_of(ahead: "np.typing.ArrayLike") -> "np.typing.NDArray[np.float32]":
    """Pairs whose good answer is ahead by so much on all dimensions, in each of two heads."""
    good = np.asarray(ahead, np.float32)
    both = np.stack([good, np.zeros_like(good)], 1)
    return np.repeat(np.repeat(both[:, :, None, None], 2, 2), 6, 3)


def test_interval_is_wilsons() -> None:
    share = share_of(8, 10)
    assert (share.share, share.n) == (0.8, 10)
    assert (share.low, share.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_report_counts_by_kind_and_set_with_the_image_and_without() -> None:
    pairs = [PAIR, PAIR, DevPair("two", "b.jpg", "What?", "good", "bad", "master", ("overall",))]
    tables = report(pairs, DevLogits(seen=logits_of([1, -1, 2]), blank=logits_of([0, -1, 1])))
    assert tables["accuracy"]["all"]["seen"]["share"] == 0.5
    assert tables["accuracy"]["one"]["blank"]["share"] == 0.25  # a tie is half a right one
    assert tables["master"]["two"]["seen"]["n"] == 1


def test_temperature_makes_win_rates_true() -> None:
    dice = np.random.default_rng(0)
    truth = dice.normal(0, 1.5, 4000)
    sign = np.where(dice.random(4000) < 1 / (1 + np.exp(-np.abs(truth))), 1.0, -1.0)
    overconfident = DevLogits(*[logits_of(3.0 * sign * np.abs(truth))] * 2)
    pairs = [replace(PAIR, image=str(place // 4)) for place in range(4000)]
    assert temperatures(pairs, overconfident) == pytest.approx([3.0] * 6, rel=0.15)
    assert calibration_error(pairs, overconfident)["accuracy"] < 0.05


def test_calibration_is_told_of_images_that_were_not_fitted_on() -> None:
    """Every image asks for a temperature of its own, which tells nothing of the others."""
    images = np.array(["right"] * 100 + ["wrong"] * 100)
    sure = np.where(images == "right", 4.0, -4.0)
    held = across_halves(sure, images.tolist())
    assert held[:100].min() == pytest.approx(0.4)  # the other image was always wrong
    assert held[100:].max() == pytest.approx(-np.log(100), rel=0.03)  # won by all but one more


def test_pairs_that_are_all_won_keep_their_temperature_from_run_to_run() -> None:
    pairs = [replace(PAIR, image=str(place)) for place in range(200)]
    once, again = (temperatures(pairs, DevLogits(*[logits_of(np.full(200, by))] * 2))[0] for by in (3.0, 30.0))
    assert again == pytest.approx(10 * once, rel=0.05)


def test_one_image_alone_is_left_as_it_is() -> None:
    assert across_halves(np.ones(3), ["a"] * 3).tolist() == [1.0] * 3


def test_the_median_answer_scores_a_half() -> None:
    found = levels(DevLogits(*[logits_of([4.0, 4.0, 4.0])] * 2), np.full(6, 2.0))
    assert found["overall"].median == pytest.approx(1.0)
    assert found["overall"].scale > 0
