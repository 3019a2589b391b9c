"""Checks of the endpoints themselves: do they serve what was measured, withstand bad input, and answer in time?"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from typing import Final

import numpy as np

from medreward.artifacts.golden import GoldenTriple, tolerance
from medreward.bench.cases import Case
from medreward.bench.finished import FinishedRun
from medreward.bench.gate import checks, latency
from medreward.bench.gate.checks import Check, Status
from medreward.bench.gate.endpoint import Endpoint, request
from medreward.bench.gate.parity import allowed_from, difference, parity, recorded
from medreward.bench.gate.policy import Load, Parity, Policy
from medreward.bench.gate.smoke import smoke
from medreward.bench.sources import open_set
from medreward.errors import ConfigurationError
from medreward.types import Runtime

NO_ANSWER: Final = 1000.0  # seconds: longer than any answer may take


@dataclass(frozen=True, slots=True)
class Served:
    """Where a run's model is served."""

    url: str
    key: str | None
    run: FinishedRun


async def live(
    policy: Policy, candidate: Served, baseline: Served | None, golden: Sequence[GoldenTriple]
) -> AsyncIterator[Check]:
    cases = await asyncio.to_thread(cases_of, candidate.run)
    async with AsyncExitStack() as stack:
        asked = await stack.enter_async_context(Endpoint(candidate.url, candidate.key))
        against = await stack.enter_async_context(Endpoint(baseline.url, baseline.key)) if baseline else None
        runtime = await _same_model(asked, candidate.run)
        if against and baseline:
            await _same_model(against, baseline.run)
        if policy.parity:
            if golden:
                yield await _golden(policy.parity.tolerance, asked, runtime, golden)
            yield await _as_measured(policy.parity, asked, runtime, candidate.run, cases)
        if policy.smoke:
            for check in await smoke(asked):
                yield check
        if policy.load:
            async for check in _load(policy.load, policy.alpha, asked, against, cases):
                yield check


def cases_of(run: FinishedRun) -> list[Case]:
    """With their texts and images, which a run does not keep."""
    ref = str(run.about["data"])
    found = {case.key: case for case in open_set(ref).cases}
    cases = [found.get(asked.key) for asked in run.cases]
    whole = [case for case in cases if case]
    seen = [(hashlib.sha256(case.image).hexdigest(), *map(len, case.answers)) for case in whole]
    if seen != [(asked.image, *asked.lengths) for asked in run.cases]:
        raise ConfigurationError(f"{ref} is no longer the set that {run.path} is a run on")
    return whole


async def _same_model(endpoint: Endpoint, run: FinishedRun) -> str:
    """What it runs in."""
    model = await endpoint.model()
    served, measured = model.get("fingerprint"), run.about["model"].get("fingerprint")
    if served != measured:
        raise ConfigurationError(f"{endpoint.url} serves {served}, but {run.path} is a run of {measured}")
    return str(model.get("runtime"))


async def _golden(exact: float, endpoint: Endpoint, runtime: str, golden: Sequence[GoldenTriple]) -> Check:
    allowed = tolerance([triple.logits for triple in golden], [Runtime.of(runtime)], exact=exact)
    largest = 0.0
    for triple in golden:
        found = await endpoint.logits(request(triple.image, triple.question, [triple.response]), 1)
        largest = max(largest, difference(found, [triple.logits]))
    return parity("parity/golden", "the golden triples", allowed, largest, len(golden))


async def _as_measured(
    wanted: Parity, endpoint: Endpoint, runtime: str, run: FinishedRun, cases: Sequence[Case]
) -> Check:
    """Some of the run's cases, asked again."""
    options = {name: run.about["settings"][name] for name in ("too_long", "thinking") if name in run.about["settings"]}
    places = np.unique(np.linspace(0, len(cases) - 1, wanted.cases).astype(int))
    largest = 0.0
    for place in places:
        case = cases[place]
        found = await endpoint.logits(request(case.image, case.question, case.answers, options), 2)
        largest = max(largest, difference(found, recorded(run.predictions[place])))
    allowed = allowed_from(run, runtime, wanted.tolerance)
    return parity("parity/run", "the run", allowed, largest, len(places))


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds from when a request was due to its answer; NO_ANSWER where there was no right one."""

    seconds: Sequence[float]
    lasted: float

    @property
    def failures(self) -> int:
        return self.seconds.count(NO_ANSWER)

    @property
    def seconds_an_answer(self) -> float:
        return self.lasted / max(0.01, len(self.seconds) - self.failures)

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.seconds, share))


async def _load(
    load: Load, alpha: float, candidate: Endpoint, baseline: Endpoint | None, cases: Sequence[Case]
) -> AsyncIterator[Check]:
    """The endpoints in turns, the first one another each time: what drifts on the machine touches both."""
    bodies = _bodies(cases)
    endpoints = [candidate, baseline] if baseline else [candidate]
    for endpoint in endpoints:
        await _round(endpoint, bodies, load)  # warms up
    rounds: tuple[list[Round], list[Round]] = [], []
    for number in range(load.rounds):
        for place in (0, 1) if number % 2 else (1, 0):
            if place < len(endpoints):
                rounds[place].append(await _round(endpoints[place], bodies, load))
    taken = rounds[0]
    failures, asked = sum(one.failures for one in taken), sum(len(one.seconds) for one in taken)
    yield latency.failed(failures, asked, load.max_failed, alpha)
    if load.max_ms is not None:
        milliseconds = 1000 * np.array([one.quantile(load.quantile) for one in taken])
        yield latency.below("load/limit", f"{_figure(load)}, ms", milliseconds, load.max_ms, alpha)
    if not baseline:
        yield Check("load/latency", Status.SKIPPED, "there is nothing to compare with: no --baseline-url was given")
        return
    slowness = latency.Rounds(*(np.array([one.quantile(load.quantile) for one in each]) for each in rounds))
    yield latency.compared("load/latency", _figure(load), slowness, load.max_ratio, alpha)
    pace = latency.Rounds(*(np.array([one.seconds_an_answer for one in each]) for each in rounds))
    yield latency.compared("load/throughput", "time for each right answer", pace, load.max_ratio, alpha)


def _figure(load: Load) -> str:
    return f"latency ({checks.percent(load.quantile)} quantile) at {load.rate:g}/s"


def _bodies(cases: Sequence[Case]) -> Iterable[bytes]:
    """The cases in turn, each a question and an image file that no cache has seen: bytes after its end are not read."""
    for case in cycle(cases):
        nonce = os.urandom(8)
        yield request(case.image + nonce, f"{case.question} ({nonce.hex()})", case.answers)


async def _round(endpoint: Endpoint, bodies: Iterable[bytes], load: Load) -> Round:
    """Requests are due at a fixed rate whatever the server does."""
    count = max(1, round(load.rate * load.seconds))
    start = time.perf_counter()
    under_way = []
    for number, body in zip(range(count), bodies, strict=False):
        due = start + number / load.rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        under_way.append(asyncio.create_task(_timed(endpoint, body, due)))
    seconds = await asyncio.gather(*under_way)
    return Round(seconds, time.perf_counter() - start)


async def _timed(endpoint: Endpoint, body: bytes, due: float) -> float:
    found = await endpoint.logits(body, 2)
    return time.perf_counter() - due if found and None not in found else NO_ANSWER
