"""Whether the candidate's probabilities can be believed, against the baseline's or a limit."""

from typing import Final

import numpy as np
from scipy.special import expit

from medreward.bench.gate import checks
from medreward.bench.gate.checks import Check, Status, percent, points
from medreward.bench.gate.policy import Calibration, Policy
from medreward.bench.gate.sheet import Answers, Column, Sheet, column
from medreward.bench.statistics import Floats
from medreward.bench.statistics.calibration import BINS

RESAMPLES: Final = 400


def check(policy: Policy, wanted: Calibration, sheet: Sheet, candidate: Answers, baseline: Answers | None) -> Check:
    """Returns the check of the expected calibration error; its bounds are a Bayesian bootstrap's, of images."""
    name, cases = "calibration", column(sheet, candidate, policy.dimensions)
    against = column(sheet, baseline, policy.dimensions) if baseline else None
    compared = against is not None and bool(np.isfinite(against.margins).any())
    limit = wanted.max_increase if compared else wanted.max_error
    if limit is None:
        return Check(name, Status.SKIPPED, f"the policy has no limit {'beside' if compared else 'without'} a baseline")
    if not np.isfinite(cases.margins).any():
        return Check(name, Status.SKIPPED, "a judge gives no probabilities")
    weights = np.random.default_rng(0).standard_exponential((1 + RESAMPLES, int(sheet.groups.max()) + 1))
    weights[0] = 1  # what was seen
    errors = _errors(cases, weights)
    if compared and against:
        errors = errors - _errors(against, weights)
    seen = float(errors[0])
    low, high = (float(bound) for bound in np.quantile(errors[1:], [policy.alpha, 1 - policy.alpha]))
    status = checks.of(high < limit, low > limit)
    needed = None
    if status == Status.UNDECIDED:
        needed = checks.needed(len(sheet), seen, high, limit, policy.alpha, policy.power)
    if compared:
        what = (
            f"the error is {points(seen)} points over the baseline's ({points(low)} to {points(high)}); "
            f"must be below {points(limit)}"
        )
    else:
        what = f"the error is {percent(seen)} ({percent(low)} to {percent(high)}); must be below {percent(limit)}"
    return Check(name, status, what, seen, low, high, limit, len(sheet), needed)


def _errors(cases: Column, weights: Floats) -> Floats:
    """Of each row of weights, which are of images: the gaps between confidence and accuracy, in bins."""
    answered = np.isfinite(cases.margins)
    confidence = expit(np.abs(cases.margins[answered]))
    bins = np.clip(np.ceil((confidence - 0.5) * 2 * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps, sizes = np.zeros((weights.shape[1], BINS)), np.zeros(weights.shape[1])
    np.add.at(gaps, (cases.groups[answered], bins), cases.credits[answered] - confidence)
    np.add.at(sizes, cases.groups[answered], 1)
    errors: Floats = np.abs(weights @ gaps).sum(axis=1) / np.maximum(weights @ sizes, 1)
    return errors
