"""Whether the same triples get the same numbers: from two runs, and from an endpoint that is asked again."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from medreward.artifacts.golden import GoldenTriple, tolerance
from medreward.bench.cases import ANSWERS, Case
from medreward.bench.finished import FinishedRun
from medreward.bench.gate.checks import Check, status_of
from medreward.bench.gate.policy import Parity
from medreward.bench.sheet import PredictionRow
from medreward.clients import AsyncClient, ClientError
from medreward.types import DIMENSIONS, InlineImage, Item, Runtime, Six

TIMEOUT_S: Final = 10.0  # a request that takes longer counts as failed


async def golden_parity(exact: float, client: AsyncClient, runtime: Runtime, golden: Sequence[GoldenTriple]) -> Check:
    """Returns the check of the model's golden triples, asked at the endpoint."""
    largest = 0.0
    for triple in golden:
        images = () if triple.image is None else (InlineImage(triple.image),)
        logits = await ask_logits(client, Item(triple.question, (triple.response,), images))
        largest = max(largest, largest_difference(logits, [triple.logits]))
    allowed = tolerance([triple.logits for triple in golden], [runtime], exact=exact)
    return parity_check("parity/golden", "the golden triples", allowed, largest, len(golden))


async def run_parity(
    wanted: Parity, client: AsyncClient, runtime: Runtime, run: FinishedRun, cases: Sequence[Case]
) -> Check:
    """Returns the check of some of the run's cases, asked again at the endpoint."""
    options = {name: run.about["settings"][name] for name in ("too_long", "thinking") if name in run.about["settings"]}
    places = np.unique(np.linspace(0, len(cases) - 1, wanted.cases).astype(int))
    largest = 0.0
    for place in places:
        case = cases[place]
        logits = await ask_logits(client, Item(case.question, case.answers, (InlineImage(case.image),)), **options)
        largest = max(largest, largest_difference(logits, recorded_logits(run.predictions[place])))
    return parity_check("parity/run", "the run", allowed_from(run, runtime, wanted.tolerance), largest, len(places))


def baseline_parity(exact: float, candidate: FinishedRun, baseline: FinishedRun) -> Check:
    """Returns the check of two runs of one model.

    One fingerprint means one set of numbers, whatever the device. Choices may hide a shift, logits do not.
    """
    pairs = zip(candidate.predictions, baseline.predictions, strict=True)
    largest = max(largest_difference(recorded_logits(one), recorded_logits(other)) for one, other in pairs)
    allowed = allowed_from(baseline, Runtime.of(str(candidate.model.get("runtime"))), exact)
    against = "the baseline of the same fingerprint"
    return parity_check("parity/baseline", against, allowed, largest, len(candidate.cases))


async def ask_logits(client: AsyncClient, item: Item, **options: Any) -> list[Six | None] | None:
    """Returns the logits of each response, None for one without a score.

    None as a whole where no right answer came in time, or it came from another model.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reply = await client.ask([item], **options)
    except (ClientError, TimeoutError):
        return None
    return [tuple(score.logits[d] for d in DIMENSIONS) if score.logits else None for score in reply.scores[0]]


def recorded_logits(prediction: PredictionRow) -> list[Six | None]:
    """Returns the logits of A and of B; a case that was not answered has none."""
    logits = prediction.logits
    return [tuple(logits[answer][d] for d in DIMENSIONS) if logits else None for answer in ANSWERS]


def largest_difference(logits: Sequence[Six | None] | None, wanted: Sequence[Six | None]) -> float:
    """Returns the largest difference of two logits; infinite where one was scored and the other was not."""
    if logits is None:
        return math.inf
    if None in logits or None in wanted:  # one response without a score is enough for a case without an answer
        return 0.0 if None in logits and None in wanted else math.inf
    one, other = (np.array(numbers, float) for numbers in (logits, wanted))  # what the model has not is NaN
    if (np.isnan(one) != np.isnan(other)).any():
        return math.inf
    return float(np.nanmax(np.abs(one - other)))


def allowed_from(run: FinishedRun, runtime: Runtime, exact: float) -> float:
    """Returns how far what another runtime gives may be from a run's logits."""
    logits = [six for prediction in run.predictions for six in recorded_logits(prediction) if six]
    return tolerance(logits, [runtime, Runtime.of(str(run.model.get("runtime")))], exact=exact)


def parity_check(name: str, against: str, allowed: float, largest: float, n: int) -> Check:
    what = f"logits of {n} cases differ from {against} by up to {largest:.2g}; at most {allowed:.2g} is allowed"
    value = largest if math.isfinite(largest) else None
    return Check(name, status_of(largest <= allowed), what, value, limit=allowed, n=n)
