"""Whether the same triples have the same numbers."""

import math
from collections.abc import Sequence

import numpy as np

from medreward.artifacts.golden import tolerance
from medreward.bench.cases import ANSWERS
from medreward.bench.finished import FinishedRun, Predicted
from medreward.bench.gate import checks
from medreward.bench.gate.checks import Check
from medreward.types import DIMENSIONS, Runtime, Six


def recorded(prediction: Predicted) -> list[Six | None]:
    """Of A and of B; a case that was not answered has none."""
    logits = prediction.logits
    return [tuple(logits[answer][d] for d in DIMENSIONS) if logits else None for answer in ANSWERS]


def difference(found: Sequence[Six | None] | None, wanted: Sequence[Six | None]) -> float:
    """The largest of the logits; infinite where one was scored and the other was not."""
    if found is None:
        return math.inf
    if None in found or None in wanted:  # one response without a score is enough for a case without an answer
        return 0.0 if None in found and None in wanted else math.inf
    one, other = (np.array(numbers, float) for numbers in (found, wanted))  # what the model has not is NaN
    if (np.isnan(one) != np.isnan(other)).any():
        return math.inf
    return float(np.nanmax(np.abs(one - other)))


def allowed_from(run: FinishedRun, runtime: str, exact: float) -> float:
    """How far what another runtime gives may be from a run's logits."""
    logits = [six for prediction in run.predictions for six in recorded(prediction) if six]
    return tolerance(logits, map(Runtime.of, (runtime, str(run.about["model"].get("runtime")))), exact=exact)


def parity(name: str, against: str, allowed: float, largest: float, n: int) -> Check:
    what = f"logits of {n} cases differ from {against} by up to {largest:.2g}; at most {allowed:.2g} is allowed"
    value = largest if math.isfinite(largest) else None
    return Check(name, checks.of(largest <= allowed), what, value, limit=allowed, n=n)
