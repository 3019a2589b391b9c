"""`fit`: the bound holds as often as it says, allows what it can, and is not claimed where labels cannot show it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from bench.screening.simulated import answer, simulated, true_rate, wish
from medreward.bench.screening.answers import Answer, column
from medreward.bench.screening.bounds import (
    cut,
    draws,
    grouped_interval,
    images_needed,
    lower,
    most_passing,
    upper,
)
from medreward.bench.screening.fitting import Fit, fit
from medreward.bench.screening.wish import NotShownError
from medreward.errors import Code, ConfigurationError, ItemError
from medreward.screening.deciding import Decider
from medreward.screening.policy import Measure, Policy
from medreward.types import Failed, Flag, Verdict

BOUND, CONFIDENCE, RUNS = 0.1, 0.9, 100


def threshold(policy: Policy, name: str = "allow") -> float:
    found = next(rule.threshold for rule in policy.rules if rule.name == name)
    assert found is not None
    return found


def loose(fitted: Fit) -> bool:
    """Returns whether the policy allows more wrong answers than it says, of all there could ever be."""
    return true_rate(threshold(fitted.policy)) > BOUND


def test_the_bound_holds_as_often_as_it_says_and_is_not_bought_by_allowing_nothing() -> None:
    samples = [simulated(80, seed, largest=3) for seed in range(RUNS)]
    fits = [fit(sample, wish(max_false_allow=BOUND, confidence=CONFIDENCE)) for sample in samples]
    assert sum(map(loose, fits)) <= (1 - CONFIDENCE) * RUNS
    right = [true_rate(threshold(one.policy), right=True) for one in fits]
    possible = true_rate(1.2816, right=True)  # where exactly a tenth of wrong answers lies above
    assert np.mean(right) > 0.65 * possible
    unbounded = [
        np.quantile(column([one for one in sample if not one.right], Measure.LOGIT, "accuracy"), 1 - BOUND)
        for sample in samples
    ]
    assert sum(true_rate(float(one)) > BOUND for one in unbounded) > 3 * (1 - CONFIDENCE) * RUNS


def test_answers_about_one_image_count_as_one_trial() -> None:
    """As many answers about five images tell less than about a hundred."""
    many = simulated(60, 1)
    few = [replace(one, image=f"image {place % 5}") for place, one in enumerate(many)]
    fit(many, wish(max_false_allow=0.1))
    with pytest.raises(NotShownError, match=r"needs wrong answers about 29 images, and there are 5: .* 24 more"):
        fit(few, wish(max_false_allow=0.1))


def test_a_chosen_form_leaves_the_labels_that_chose_it_out_of_the_bound() -> None:
    """Uncertainty tells right from wrong here, so that the guard that asks for it is chosen."""
    answers = [
        answer(float(rng.normal(0, 1)), right, f"{image}", doubt=float(rng.uniform(0, 0.5) + (0 if right else 0.4)))
        for image in range(600)
        for right in (True, False)
        for rng in [np.random.default_rng([image, right])]
    ]
    chosen = fit(answers, wish(max_false_allow=0.1))
    plain = fit(answers, wish(max_false_allow=0.1, guard="none"))
    assert chosen.guard.name == "uncertainty"
    bound, alone = chosen.policy.false_allow, plain.policy.false_allow
    assert bound is not None
    assert alone is not None
    assert bound.images + chosen.chosen_on == 600 == alone.images
    assert 100 < chosen.chosen_on < 300
    assert bound.right_allowed / bound.right > 1.5 * alone.right_allowed / alone.right
    allowed = [one for one in answers if decide(chosen, one) is Verdict.ALLOW and not one.right]
    assert len(allowed) / 600 <= 0.1


def decide(fitted: Fit, one: Answer) -> Verdict:
    return Decider(fitted.policy, None).decide(one.result, one.response, one.department).verdict


def test_few_labels_are_all_used_for_the_bound() -> None:
    assert fit(simulated(100, 3), wish(max_false_allow=0.1)).chosen_on == 0


def test_what_has_a_flag_or_is_below_a_floor_is_reviewed_and_not_counted_as_allowed() -> None:
    answers = [
        one
        for image in range(100)
        for one in (
            answer(3.0, True, f"{image}"),
            answer(5.0, False, f"{image}", flags=(Flag.OUT_OF_SCOPE,)),
            answer(5.0, False, f"{image}", 1, relevance=-2.0),
            answer(-1.0, False, f"{image}", 2),
        )
    ]
    fitted = fit(answers, wish(max_false_allow=0.05, review_below={"relevance": -1.0}))
    bound = fitted.policy.false_allow
    assert bound is not None
    assert (bound.wrong_allowed, bound.right_allowed) == (0, 100)
    assert decide(fitted, answers[1]) is Verdict.REVIEW
    assert decide(fitted, answers[2]) is Verdict.REVIEW
    with pytest.raises(NotShownError, match="no threshold allows a right answer"):
        fit(answers, wish(max_false_allow=0.05, review_flags=(), review_below={}))


def test_an_unscored_answer_is_never_allowed() -> None:
    answers = simulated(100, 4)
    lost = Failed(0, 0, ItemError(Code.IMAGE_INVALID, "no image"))
    fitted = fit([*answers, replace(answers[0], result=lost)], wish(max_false_allow=0.1))
    assert any("1 answers could not be scored" in note for note in fitted.notes)
    with pytest.raises(ConfigurationError, match="no answer has a logit of accuracy"):
        fit([replace(one, result=lost) for one in answers], wish())


def test_the_block_rule_has_a_bound_of_its_own_or_is_left_out() -> None:
    answers = simulated(150, 5)
    fitted = fit(answers, wish(max_false_allow=0.1, max_false_block=0.05))
    block, below = fitted.policy.false_block, threshold(fitted.policy, "block")
    assert block is not None
    assert block.right_blocked / block.right <= 0.05
    assert block.wrong_blocked > block.right_blocked
    assert below <= threshold(fitted.policy)
    without = fit(answers, wish(max_false_allow=0.1, max_false_block=0.01))
    assert without.policy.false_block is None
    assert {rule.verdict for rule in without.policy.rules} == {Verdict.REVIEW, Verdict.ALLOW}
    assert any("needs 299 images" in note for note in without.notes)


def test_a_department_has_its_own_threshold_where_its_labels_show_the_bound() -> None:
    """In the second one wrong answers score high; in the third there are few labels."""
    easy = simulated(100, 6, department="chest")
    hard = [
        replace(one, result=answer(column([one], Measure.LOGIT, "accuracy")[0] + 1, one.right, "x").result)
        for one in simulated(100, 7, department="brain")
    ]
    few = [*simulated(10, 8, department="eye"), *simulated(90, 9)]
    fitted = fit([*easy, *hard, *few], wish(max_false_allow=0.1, by_department=True, guard="none"))
    own = {name: table["allow"] for name, table in fitted.policy.departments.items()}
    assert set(own) == {"chest", "brain"}
    assert own["brain"] > own["chest"] + 0.5
    assert any(note.startswith("department eye: the general threshold, for 10 images") for note in fitted.notes)
    # Each has a third of the risk, so that all three hold together: that is stricter than one alone.
    assert own["chest"] >= threshold(fit(easy, wish(max_false_allow=0.1)).policy)


def test_one_side_alone_cannot_be_fitted() -> None:
    for side in (True, False):
        with pytest.raises(NotShownError, match="both kinds are needed"):
            fit([one for one in simulated(50, 1) if one.right is side], wish())


def test_the_same_labels_give_the_same_policy_in_any_order() -> None:
    answers = simulated(80, 11)
    shuffled = [answers[place] for place in np.random.default_rng(0).permutation(len(answers))]
    wanted = wish(max_false_allow=0.1)
    assert fit(shuffled, wanted).policy == fit(answers, wanted).policy


# bounds


@pytest.mark.parametrize(("at_most", "confidence", "images"), [(0.02, 0.95, 149), (0.05, 0.95, 59), (0.01, 0.99, 459)])
def test_images_needed_is_the_first_number_that_suffices(at_most: float, confidence: float, images: int) -> None:
    assert images_needed(at_most, confidence) == images
    assert most_passing(images, at_most, confidence) == 0
    assert most_passing(images - 1, at_most, confidence) is None


def test_one_more_that_passes_would_break_the_bound() -> None:
    for images in (149, 281, 1000):
        passing = most_passing(images, 0.02, 0.95)
        assert passing is not None
        assert upper(passing, images, 0.95) <= 0.02 < upper(passing + 1, images, 0.95)
        assert lower(passing, images, 0.95) <= passing / images


def test_above_the_cut_lie_no_more_than_may_pass() -> None:
    values = np.array([5.0, 4.0, 4.0, *range(-100, 0)])
    everything = [np.arange(len(values))]
    assert most_passing(len(values), 0.05, 0.95) == 1
    assert cut(values, everything, 0.05, 0.95) == 4.0  # of two equal ones neither passes


def test_a_draw_has_one_answer_of_each_image_and_draws_differ() -> None:
    answers = simulated(50, 12)
    drawn = draws(answers)
    assert all(len(places) == 50 for places in drawn)
    assert len({tuple(sorted(places)) for places in drawn}) == len(drawn)


def test_an_interval_is_wider_where_answers_share_images() -> None:
    values = np.repeat([1.0, 0.0, 0.0, 0.0], 25)
    alone, shared = (grouped_interval(values, groups) for groups in (np.arange(100), np.repeat(np.arange(4), 25)))
    assert alone == pytest.approx((0.169, 0.347), abs=1e-3)  # Clopper and Pearson's of 25 in 100
    assert shared is not None
    assert shared[1] - shared[0] > 2 * (0.347 - 0.169)
    assert grouped_interval(np.zeros(0), np.zeros(0, dtype=np.int64)) is None


def test_numbers_are_rounded_to_the_safe_side() -> None:
    for seed in range(5):
        answers = simulated(60, seed)
        policy = fit(answers, wish(max_false_allow=0.1, max_false_block=0.1)).policy
        assert re.fullmatch(r"-?\d+\.\d{1,4}", str(threshold(policy)))
        wrong = [one for one in answers if not one.right]
        values = column(wrong, Measure.LOGIT, "accuracy")
        strictest = cut(values, draws(wrong), 0.1, 0.95)
        assert strictest is not None
        assert strictest < threshold(policy) <= strictest + 2e-4
