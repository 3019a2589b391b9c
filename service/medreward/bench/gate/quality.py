"""What two runs on the same cases show: floors, the baseline, organs, calibration, refusals and shortcuts.

A bound is one-sided at the policy's alpha. A check passes when its bound is on the right side of the limit, fails when
the opposite bound is on the wrong side, and is undecided where the limit lies between them. What has no label at all is
"no label": more of the same data would not decide it.
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

from medreward.bench.gate import checks, reliability
from medreward.bench.gate.checks import Check, Status, percent, points
from medreward.bench.gate.policy import Policy, Pool
from medreward.bench.gate.sheet import Answers, Sheet, column
from medreward.bench.statistics import Floats, Groups
from medreward.bench.statistics.accuracy import design_effect
from medreward.bench.statistics.paired import Difference, NonInferiority, adjusted, difference, non_inferiority
from medreward.bench.statistics.shortcuts import by_length, by_position


def quality(
    policy: Policy, sheet: Sheet, candidate: Answers, baseline: Answers | None, blanked: Answers | None = None
) -> Iterator[Check]:
    yield from _labels(policy, sheet)
    yield from _floors(policy, sheet, candidate)
    if baseline:
        yield from _pools(policy, sheet, candidate, baseline)
        if policy.no_organ_worse:
            yield from _organs(policy, sheet, candidate, baseline)
    if policy.calibration:
        yield reliability.check(policy, policy.calibration, sheet, candidate, baseline)
    if policy.max_unanswered:
        yield _unanswered(policy, policy.max_unanswered, candidate)
    yield from _shortcuts(policy, sheet, candidate, blanked)


def _labels(policy: Policy, sheet: Sheet) -> Iterator[Check]:
    for dimension in policy.dimensions:
        n = sheet.labelled(dimension)
        what = f"{n} cases have a label on {dimension}" if n else f"no case has a label on {dimension}"
        yield Check(f"labels/{dimension}", Status.PASS if n else Status.NO_LABEL, what, n=n)


def _floors(policy: Policy, sheet: Sheet, candidate: Answers) -> Iterator[Check]:
    for dimension, floor in policy.floors.items():
        name, cases = f"floor/{dimension}", column(sheet, candidate, [dimension])
        n = len(cases.labels)
        if not n:
            yield Check(name, Status.NO_LABEL, f"no case has a label on {dimension}", limit=floor, n=0)
            continue
        seen = float(cases.credits.mean())
        alone = n / design_effect(cases.credits, cases.groups)
        low, high = proportion_confint(seen * alone, alone, 2 * policy.alpha, "wilson")
        status = checks.of(low > floor, high < floor)
        needed = checks.needed(n, seen, low, floor, policy.alpha, policy.power) if status == Status.UNDECIDED else None
        what = f"accuracy {percent(seen)} ({percent(low)} to {percent(high)}); it must be above {percent(floor)}"
        yield Check(name, status, what, seen, float(low), float(high), floor, n, needed)


def _pools(policy: Policy, sheet: Sheet, candidate: Answers, baseline: Answers) -> Iterator[Check]:
    """Every pool must be shown non-inferior, so none is corrected. That one is worse is said with Holm's correction."""
    found = []
    for pool in policy.non_inferiority:
        cases, against = (column(sheet, answers, pool.dimensions) for answers in (candidate, baseline))
        if not len(cases.labels):
            what = f"no case has a label on {' or '.join(pool.dimensions)}"
            yield Check(f"non_inferiority/{pool.name}", Status.NO_LABEL, what, limit=-pool.margin, n=0)
            continue
        shown = non_inferiority(
            cases.credits, against.credits, cases.groups, pool.margin, alpha=policy.alpha, power=policy.power
        )
        p = worse(cases.credits, against.credits, cases.groups)
        found.append((pool, shown, len(pool.dimensions), p))
    for (pool, shown, size, _), p in zip(found, adjusted([p for *_, p in found], "holm"), strict=True):
        yield _pool(policy, pool, shown, size, p)


def _pool(policy: Policy, pool: Pool, shown: NonInferiority, size: int, p: float) -> Check:
    is_worse = p < policy.family_alpha
    status = checks.of(shown.shown, shown.refuted or is_worse)
    cases = shown.n // size
    needed = None
    if status == Status.UNDECIDED:
        needed = max(1, shown.needed // size)
        if needed <= cases:  # an equal run would have shown it by now
            needed = checks.needed(cases, shown.difference, shown.low, -pool.margin, policy.alpha, policy.power)
    what = (
        f"{points(shown.difference)} points against the baseline ({points(shown.low)} to {points(shown.high)}), "
        f"must be above {points(-pool.margin)}; they differ on {percent(shown.discordant)}"
        f"{f', worse (Holm p = {p:.2g})' if is_worse else ''}"
    )
    name = f"non_inferiority/{pool.name}"
    return Check(name, status, what, shown.difference, shown.low, shown.high, -pool.margin, cases, needed)


def _organs(policy: Policy, sheet: Sheet, candidate: Answers, baseline: Answers) -> Iterator[Check]:
    """Over the policy's dimensions. An organ with too few cases to pass or to fail is not shown; it refuses nothing."""
    found: list[tuple[str, Difference, float]] = []
    for organ in map(str, np.unique(sheet.organs)):
        cases, against = (column(sheet, answers, policy.dimensions, organ) for answers in (candidate, baseline))
        if len(cases.labels):
            seen = difference(cases.credits, against.credits, cases.groups, 1 - 2 * policy.alpha)
            found.append((organ, seen, worse(cases.credits, against.credits, cases.groups)))
    for (organ, seen, _), p in zip(found, adjusted([p for *_, p in found], "holm"), strict=True):
        n, limit = int((sheet.organs == organ).sum()), -policy.organ_margin
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
            what += f"; too few cases to show that it is not worse by {checks.POINTS * policy.organ_margin:g} points"
        yield Check(f"organ/{organ}", status, what, seen.value, seen.low, seen.high, limit, n)


def worse(first: Floats, second: Floats, groups: Groups) -> float:
    """Wilcoxon's signed ranks, one-sided, of the images' sums: what shares an image is one observation.

    A handful of cases that lose on all six dimensions are a handful, and show nothing.
    """
    sums = np.bincount(groups, weights=first - second)
    sums = sums[sums != 0]
    return float(stats.wilcoxon(sums, alternative="less").pvalue) if len(sums) else 1.0


def _unanswered(policy: Policy, limit: float, candidate: Answers) -> Check:
    count, n = candidate.unanswered(policy.dimensions), len(candidate.choices)
    interval = stats.binomtest(count, n).proportion_ci(1 - 2 * policy.alpha, method="exact")
    seen, low, high = count / n, float(interval.low), float(interval.high)
    status = checks.of(high <= limit, low > limit)
    needed = _needed_unanswered(policy, seen, low, limit, n) if status == Status.UNDECIDED else None
    what = f"{count} of {n} cases have no answer ({percent(low)} to {percent(high)}); at most {percent(limit)} may"
    return Check("unanswered", status, what, seen, low, high, limit, n, needed)


def _needed_unanswered(policy: Policy, seen: float, low: float, limit: float, n: int) -> int:
    """Returns how many cases are needed; the bounds of a rare thing come nearer faster than with the root of them."""
    if seen >= limit:
        return checks.needed(n, seen, low, limit, policy.alpha, policy.power)

    def over(cases: float) -> float:
        return float(stats.beta.ppf(1 - policy.alpha, seen * cases + 1, cases * (1 - seen))) - limit

    return math.ceil(optimize.brentq(over, n, checks.NEVER)) if over(checks.NEVER) < 0 else checks.NEVER


def _shortcuts(policy: Policy, sheet: Sheet, candidate: Answers, blanked: Answers | None) -> Iterator[Check]:
    wanted = policy.shortcuts
    if not wanted:
        return
    labelled = [dimension for dimension in wanted.dimensions if sheet.labelled(dimension)]
    if not labelled:
        yield Check("shortcut", Status.NO_LABEL, f"no case has a label on {' or '.join(wanted.dimensions)}", n=0)
        return
    cases = [column(sheet, candidate, [dimension]) for dimension in labelled]
    rivals = {
        "length": [by_length(one.labels, one.lengths) for one in cases],
        "position": [by_position(one.labels) for one in cases],
    }
    if blanked:
        rivals["blanked"] = [column(sheet, blanked, [dimension]).credits for dimension in labelled]
    own, groups = np.concatenate([one.credits for one in cases]), np.concatenate([one.groups for one in cases])
    for name, rival in rivals.items():
        seen = difference(own, np.concatenate(rival), groups, 1 - 2 * policy.alpha)
        yield _gain(policy, wanted.gain, f"shortcut/{name}", seen, seen.n // len(cases))


def _gain(policy: Policy, gain: float, name: str, seen: Difference, n: int) -> Check:
    status = checks.of(seen.low > 0, seen.high < gain)
    needed = None
    if status == Status.UNDECIDED:
        needed = checks.needed(n, seen.value, seen.low, 0.0, policy.alpha, policy.power)
    what = f"{points(seen.value)} points over it ({points(seen.low)} to {points(seen.high)}); must be above 0"
    return Check(name, status, what, seen.value, seen.low, seen.high, 0.0, n, needed)
