"""Whether a merged model keeps what each of its experts can do, by the gate's own tests."""

from collections.abc import Sequence
from dataclasses import dataclass

from medreward.bench.comparing import refuse_other_cases
from medreward.bench.finished import FinishedRun
from medreward.bench.gate.checks import Check, Status, percent, points, status_of
from medreward.bench.gate.policy import Policy, Pool
from medreward.bench.gate.quality import worse
from medreward.bench.sheet import Column
from medreward.bench.statistics.paired import NonInferiority, adjusted, non_inferiority


@dataclass(frozen=True, slots=True)
class ExpertRun:
    """A run of one expert; its merit is measured on the cases of its department, on all where it has none."""

    name: str
    run: FinishedRun
    department: str | None = None


def against_experts(policy: Policy, merged: FinishedRun, experts: Sequence[ExpertRun]) -> list[Check]:
    """Returns a check for each expert: whether the merged model is not worse than it on its own cases.

    The test and its margin are those of the policy's widest pool. That the merged model is worse is said with Holm's
    correction over the experts. A check that did not pass names an expert to keep apart. Fails with a
    ConfigurationError where the runs are on other cases.
    """
    refuse_other_cases([merged, *(expert.run for expert in experts)])
    pool = max(policy.non_inferiority, key=lambda pool: len(pool.dimensions))
    checks, tests = [], []
    for expert in experts:
        cases, against = (_own_cases(run.sheet.column(*pool.dimensions), expert) for run in (merged, expert.run))
        if not len(cases):
            what = f"no labelled case is of the department or organ {expert.department}"
            checks.append(Check(f"expert/{expert.name}", Status.NO_LABEL, what, limit=-pool.margin, n=0))
            continue
        both = cases.credits, against.credits, cases.images
        test = non_inferiority(*both, pool.margin, alpha=policy.alpha, power=policy.power)
        tests.append((expert, test, worse(*both)))
    for (expert, test, _), p in zip(tests, adjusted([p for *_, p in tests], "holm"), strict=True):
        checks.append(_check(policy, pool, expert, test, p))
    return checks


def _own_cases(column: Column, expert: ExpertRun) -> Column:
    if expert.department is None:
        return column
    return column.inside((column.departments == expert.department) | (column.organs == expert.department))


def _check(policy: Policy, pool: Pool, expert: ExpertRun, test: NonInferiority, p: float) -> Check:
    is_worse = p < policy.family_alpha
    status = status_of(test.shown and not is_worse, test.refuted or is_worse)
    cases = test.n // len(pool.dimensions)
    needed = max(1, test.needed // len(pool.dimensions)) if status is Status.UNDECIDED else None
    what = (
        f"{points(test.difference)} points against {expert.name} ({points(test.low)} to {points(test.high)}), must be "
        f"above {points(-pool.margin)}; they differ on {percent(test.discordant)}; Holm p of being worse {p:.2g}"
    )
    return Check(
        f"expert/{expert.name}", status, what, test.difference, test.low, test.high, -pool.margin, cases, needed
    )
