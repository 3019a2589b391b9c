"""What two runs on the same cases show: floors, the baseline, organs, calibration, refusals and shortcuts.

A bound is one-sided at the policy's alpha. A check passes when its bound is on the right side of the limit, fails when
the opposite bound is on the wrong side, and is undecided where the limit lies between them. What has no label at all is
"no label": more of the same data would not decide it.
"""

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

from medreward.bench.gate.checks import NEVER, POINTS, Check, Status, cases_to_decide, percent, points, status_of
from medreward.bench.gate.policy import Calibration, Policy, Pool, Shortcuts
from medreward.bench.sheet import Sheet
from medreward.bench.statistics import Floats, Groups
from medreward.bench.statistics.accuracy import by_length, by_position, design_effect
from medreward.bench.statistics.calibration import weighted_calibration_errors
from medreward.bench.statistics.paired import NonInferiority, adjusted, difference, non_inferiority

RESAMPLES: Final = 400


def quality(
    policy: Policy, candidate: Sheet, baseline: Sheet | None = None, blanked: Sheet | None = None
) -> Iterator[Check]:
    """Gives every check that the policy wants of these runs, which are on the same cases."""
    for dimension in policy.dimensions:
        n = candidate.labelled(dimension)
        what = f"{n} cases have a label on {dimension}" if n else f"no case has a label on {dimension}"
        yield Check(f"labels/{dimension}", Status.PASS if n else Status.NO_LABEL, what, n=n)
    yield from floors(policy, candidate)
    if baseline:
        yield from pools(policy, candidate, baseline)
        if policy.no_organ_worse:
            yield from organs(policy, candidate, baseline)
    if policy.calibration:
        yield calibration(policy, policy.calibration, candidate, baseline)
    if policy.max_unanswered:
        yield unanswered(policy, policy.max_unanswered, candidate)
    if policy.shortcuts:
        yield from shortcuts(policy, policy.shortcuts, candidate, blanked)


def floors(policy: Policy, candidate: Sheet) -> Iterator[Check]:
    for dimension, floor in policy.floors.items():
        name, cases = f"floor/{dimension}", candidate.column(dimension)
        n = len(cases)
        if not n:
            yield Check(name, Status.NO_LABEL, f"no case has a label on {dimension}", limit=floor, n=0)
            continue
        seen = float(cases.credits.mean())
        alone = n / design_effect(cases.credits, cases.images)
        low, high = proportion_confint(seen * alone, alone, 2 * policy.alpha, "wilson")
        status = status_of(low > floor, high < floor)
        needed = None
        if status == Status.UNDECIDED:
            needed = cases_to_decide(n, seen, low, floor, policy.alpha, policy.power)
        what = f"accuracy {percent(seen)} ({percent(low)} to {percent(high)}); it must be above {percent(floor)}"
        yield Check(name, status, what, seen, float(low), float(high), floor, n, needed)


def pools(policy: Policy, candidate: Sheet, baseline: Sheet) -> Iterator[Check]:
    """Every pool must be shown non-inferior, so none is corrected. That one is worse is said with Holm's correction."""
    tests = []
    for pool in policy.non_inferiority:
        cases, against = candidate.column(*pool.dimensions), baseline.column(*pool.dimensions)
        if not len(cases):
            what = f"no case has a label on {' or '.join(pool.dimensions)}"
            yield Check(f"non_inferiority/{pool.name}", Status.NO_LABEL, what, limit=-pool.margin, n=0)
            continue
        both = cases.credits, against.credits, cases.images
        test = non_inferiority(*both, pool.margin, alpha=policy.alpha, power=policy.power)
        tests.append((pool, test, worse(*both)))
    for (pool, test, _), p in zip(tests, adjusted([p for *_, p in tests], "holm"), strict=True):
        yield _pool_check(policy, pool, test, p)


def _pool_check(policy: Policy, pool: Pool, test: NonInferiority, p: float) -> Check:
    is_worse = p < policy.family_alpha
    status = status_of(test.shown, test.refuted or is_worse)
    size = len(pool.dimensions)
    cases, limit, needed = test.n // size, -pool.margin, None
    if status == Status.UNDECIDED:
        needed = max(1, test.needed // size)
        if needed <= cases:  # an equal run would have shown it by now
            needed = cases_to_decide(cases, test.difference, test.low, limit, policy.alpha, policy.power)
    what = (
        f"{points(test.difference)} points against the baseline ({points(test.low)} to {points(test.high)}), "
        f"must be above {points(limit)}; they differ on {percent(test.discordant)}"
        f"{f', worse (Holm p = {p:.2g})' if is_worse else ''}"
    )
    return Check(
        f"non_inferiority/{pool.name}", status, what, test.difference, test.low, test.high, limit, cases, needed
    )


def organs(policy: Policy, candidate: Sheet, baseline: Sheet) -> Iterator[Check]:
    """Over the policy's dimensions. An organ with too few cases to pass or to fail is not shown; it refuses nothing."""
    cases, against = candidate.column(*policy.dimensions), baseline.column(*policy.dimensions)
    tests = []
    for organ in map(str, np.unique(cases.organs)):
        inside = cases.organs == organ
        both = cases.credits[inside], against.credits[inside], cases.images[inside]
        tests.append((organ, difference(*both, 1 - 2 * policy.alpha), worse(*both)))
    for (organ, seen, _), p in zip(tests, adjusted([p for *_, p in tests], "holm"), strict=True):
        n, limit = int((candidate.organs == organ).sum()), -policy.organ_margin
        what = (
            f"{points(seen.value)} points against the baseline ({points(seen.low)} to {points(seen.high)}) "
            f"on {n} cases; Holm p of being worse {p:.2g}"
        )
        if p < policy.family_alpha:
            status = Status.FAIL
        elif seen.low > limit:
            status = Status.PASS
        else:
            status = Status.NOT_SHOWN
            what += f"; too few cases to show that it is not worse by {POINTS * policy.organ_margin:g} points"
        yield Check(f"organ/{organ}", status, what, seen.value, seen.low, seen.high, limit, n)


def worse(first: Floats, second: Floats, groups: Groups) -> float:
    """Returns the p value of the first run being the worse one.

    Wilcoxon's signed ranks, one-sided, of the images' sums: what shares an image is one observation. A handful of cases
    that lose on all six dimensions are a handful, and show nothing.
    """
    sums = np.bincount(groups, weights=first - second)
    sums = sums[sums != 0]
    return float(stats.wilcoxon(sums, alternative="less").pvalue) if len(sums) else 1.0


def calibration(policy: Policy, wanted: Calibration, candidate: Sheet, baseline: Sheet | None) -> Check:
    """Returns the check of the expected calibration error; its bounds are a Bayesian bootstrap's, of images."""
    name, cases = "calibration", candidate.column(*policy.dimensions)
    against = baseline.column(*policy.dimensions) if baseline else None
    if against is not None and not np.isfinite(against.margins).any():
        against = None  # a judge, which has no calibration to compare with
    limit = wanted.max_error if against is None else wanted.max_increase
    if limit is None:
        return Check(
            name, Status.SKIPPED, f"the policy has no limit {'without' if against is None else 'beside'} a baseline"
        )
    if not np.isfinite(cases.margins).any():
        return Check(name, Status.SKIPPED, "a judge gives no probabilities")
    weights = np.random.default_rng(0).standard_exponential((1 + RESAMPLES, int(candidate.images.max()) + 1))
    weights[0] = 1  # what was seen
    errors = weighted_calibration_errors(cases.margins, cases.credits, cases.images, weights)
    if against is not None:
        errors = errors - weighted_calibration_errors(against.margins, against.credits, against.images, weights)
    n, seen = len(candidate), float(errors[0])
    low, high = (float(bound) for bound in np.quantile(errors[1:], [policy.alpha, 1 - policy.alpha]))
    status = status_of(high < limit, low > limit)
    needed = None
    if status == Status.UNDECIDED:
        needed = cases_to_decide(n, seen, high, limit, policy.alpha, policy.power)
    if against is not None:
        what = (
            f"the error is {points(seen)} points over the baseline's ({points(low)} to {points(high)}); "
            f"must be below {points(limit)}"
        )
    else:
        what = f"the error is {percent(seen)} ({percent(low)} to {percent(high)}); must be below {percent(limit)}"
    return Check(name, status, what, seen, low, high, limit, n, needed)


def unanswered(policy: Policy, limit: float, candidate: Sheet) -> Check:
    count, n = candidate.unanswered(policy.dimensions), len(candidate)
    interval = stats.binomtest(count, n).proportion_ci(1 - 2 * policy.alpha, method="exact")
    seen, low, high = count / n, float(interval.low), float(interval.high)
    status = status_of(high <= limit, low > limit)
    needed = None
    if status == Status.UNDECIDED and seen >= limit:
        needed = cases_to_decide(n, seen, low, limit, policy.alpha, policy.power)
    elif status == Status.UNDECIDED:  # the bound of a rare thing comes nearer faster than with the root of the cases

        def over(cases: float) -> float:
            return float(stats.beta.ppf(1 - policy.alpha, seen * cases + 1, cases * (1 - seen))) - limit

        needed = math.ceil(optimize.brentq(over, n, NEVER)) if over(NEVER) < 0 else NEVER
    what = f"{count} of {n} cases have no answer ({percent(low)} to {percent(high)}); at most {percent(limit)} may"
    return Check("unanswered", status, what, seen, low, high, limit, n, needed)


def shortcuts(policy: Policy, wanted: Shortcuts, candidate: Sheet, blanked: Sheet | None) -> Iterator[Check]:
    """Over the labelled ones of the dimensions; the better side of a shortcut is chosen on each of them."""
    dimensions = [dimension for dimension in wanted.dimensions if candidate.labelled(dimension)]
    if not dimensions:
        yield Check("shortcut", Status.NO_LABEL, f"no case has a label on {' or '.join(wanted.dimensions)}", n=0)
        return
    cases = [candidate.column(dimension) for dimension in dimensions]
    rivals = {
        "length": [by_length(one.labels, one.lengths) for one in cases],
        "position": [by_position(one.labels) for one in cases],
    }
    if blanked:
        rivals["blanked"] = [blanked.column(dimension).credits for dimension in dimensions]
    own, images = np.concatenate([one.credits for one in cases]), np.concatenate([one.images for one in cases])
    for name, rival in rivals.items():
        seen = difference(own, np.concatenate(rival), images, 1 - 2 * policy.alpha)
        status, n, needed = status_of(seen.low > 0, seen.high < wanted.gain), seen.n // len(cases), None
        if status == Status.UNDECIDED:
            needed = cases_to_decide(n, seen.value, seen.low, 0.0, policy.alpha, policy.power)
        what = f"{points(seen.value)} points over it ({points(seen.low)} to {points(seen.high)}); must be above 0"
        yield Check(f"shortcut/{name}", status, what, seen.value, seen.low, seen.high, 0.0, n, needed)
