"""Rates from few labels and many scores: intervals cover, and are narrower than those of the labels alone."""

import numpy as np
import pytest

from medreward.bench.screening.estimating import Estimate, Sample, false_allow, wrong_among_allowed
from medreward.errors import ConfigurationError

WRONG, RUNS = 0.3, 200


def stream(count: int, seed: int, *, telling: float = 1.0) -> Sample:
    """Returns answers of which three in ten are wrong; `telling` says how far the doubt knows which."""
    rng = np.random.default_rng(seed)
    wrong = (rng.random(count) < WRONG).astype(np.float64)
    doubt = 1 / (1 + np.exp(-(telling * 3 * (wrong - 0.5) + rng.normal(0, 1, count))))
    allowed = (doubt < 0.6).astype(np.float64)
    return Sample(allowed, doubt, np.arange(count), wrong)


TRUTH = stream(400_000, 99)
FALSE_ALLOW = float(TRUTH.allowed[TRUTH.wrong > 0].mean())
WRONG_AMONG_ALLOWED = float(TRUTH.wrong[TRUTH.allowed > 0].mean())


@pytest.mark.parametrize(
    ("estimated", "truth"), [(false_allow, FALSE_ALLOW), (wrong_among_allowed, WRONG_AMONG_ALLOWED)]
)
def test_intervals_cover_and_are_narrower_than_by_the_labels_alone(estimated, truth: float) -> None:  # type: ignore[no-untyped-def]  # two functions of one shape
    found: list[Estimate] = [estimated(stream(300, seed), stream(5_000, 1_000 + seed)) for seed in range(RUNS)]
    covered = sum(one.interval[0] <= truth <= one.interval[1] for one in found)
    assert covered >= 0.91 * RUNS  # of 95%: the normal approximation, and the luck of so many runs
    width = np.mean([one.interval[1] - one.interval[0] for one in found])
    alone = np.mean([one.by_labels_interval[1] - one.by_labels_interval[0] for one in found])
    assert width < 0.97 * alone
    assert np.mean([one.value for one in found]) == pytest.approx(truth, abs=0.01)


def test_a_doubt_that_tells_nothing_has_no_weight_and_does_no_harm() -> None:
    found = [wrong_among_allowed(stream(300, seed, telling=0), stream(5_000, 500 + seed)) for seed in range(50)]
    assert np.mean([one.weight for one in found if one]) < 0.1
    values = [one.value for one in found if one]
    assert np.mean(values) == pytest.approx(WRONG, abs=0.02)


def test_answers_about_one_image_do_not_narrow_the_interval() -> None:
    labelled = stream(200, 1)
    twice = labelled.those(np.repeat(np.arange(200), 2))
    once, doubled = (wrong_among_allowed(sample, stream(5_000, 2)) for sample in (labelled, twice))
    assert once is not None
    assert doubled is not None
    assert doubled.interval == pytest.approx(once.interval, abs=1e-6)


def test_labels_of_a_few_images_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="30 images or more, and there are 29"):
        false_allow(stream(29, 1), stream(100, 2))
