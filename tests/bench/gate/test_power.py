"""The default policy on simulated runs of models whose truth is known; docs/gate.md has the figures of many more."""

from dataclasses import replace

import numpy as np
import pytest

from medreward.bench.gate.checks import Verdict
from medreward.bench.gate.policy import read_policy
from medreward.bench.gate.power import ACCURACY_ONLY, PLANTED, Spoil, World, release, verdicts
from medreward.bench.gate.quality import quality

pytestmark = pytest.mark.slow

POLICY = read_policy("default").policy
WORLD = World()


def test_an_equal_model_is_mostly_promoted_and_rarely_refused() -> None:
    """84 and 2 in 100 over many more."""
    found = verdicts(POLICY, WORLD, 60)
    assert found[Verdict.PROMOTE] >= 42
    assert found[Verdict.REFUSE] <= 5


def test_a_model_that_is_worse_by_a_margin_is_not_promoted() -> None:
    """At most one in twenty where it is one dimension; on all six it is refused."""
    assert verdicts(POLICY, WORLD, 60, worse_by=0.05 * ACCURACY_ONLY)[Verdict.PROMOTE] <= 9
    assert verdicts(POLICY, WORLD, 20, worse_by=0.05)[Verdict.REFUSE] >= 17


@pytest.mark.parametrize("spoil", PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_refused(spoil: Spoil) -> None:
    found = verdicts(POLICY, WORLD, 15, spoil=spoil)
    assert found[Verdict.REFUSE] >= 13
    assert not found[Verdict.PROMOTE]


def test_too_few_cases_promote_nothing() -> None:
    assert verdicts(POLICY, replace(WORLD, cases=100), 20)[Verdict.PROMOTE] == 0


def test_the_simulated_runs_are_what_they_are_said_to_be() -> None:
    simulated = release(replace(WORLD, cases=20_000), np.random.default_rng(0), worse_by=0.04)
    candidate, baseline = (run.labels == run.choices for run in (simulated.candidate, simulated.baseline))
    assert baseline.mean() == pytest.approx(WORLD.accuracy, abs=0.01)
    assert candidate.mean() == pytest.approx(WORLD.accuracy - 0.04, abs=0.01)
    assert (candidate != baseline).mean() == pytest.approx(WORLD.discordant, abs=0.02)
    found = quality(POLICY, simulated.candidate)
    error = next(check.value for check in found if check.name == "calibration")
    assert error is not None
    assert error < 0.01
