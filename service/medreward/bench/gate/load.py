"""Whether an endpoint answers in time, and as fast as another: an open loop of requests, and what it shows."""

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final

import numpy as np
from scipy import stats

from medreward.bench.cases import Case
from medreward.bench.gate.checks import Check, Status, percent, status_of
from medreward.bench.gate.parity import ask_logits
from medreward.bench.gate.policy import Load
from medreward.bench.statistics import Floats
from medreward.clients import AsyncClient
from medreward.types import InlineImage, Item

NO_ANSWER: Final = 1000.0  # seconds: longer than any answer may take


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


async def load_checks(
    load: Load, alpha: float, candidate: AsyncClient, baseline: AsyncClient | None, cases: Sequence[Case]
) -> AsyncIterator[Check]:
    """Gives the checks of the load. It is put on the endpoints in turns, the first one another each time.

    So what drifts on the machine touches both.
    """
    items = _unseen_items(cases)
    clients = [candidate, baseline] if baseline else [candidate]
    for client in clients:
        await run_round(client, items, load)  # warms up
    rounds: tuple[list[Round], list[Round]] = [], []
    for number in range(load.rounds):
        for place in (0, 1) if number % 2 else (1, 0):
            if place < len(clients):
                rounds[place].append(await run_round(clients[place], items, load))
    failures, requests = sum(one.failures for one in rounds[0]), sum(len(one.seconds) for one in rounds[0])
    yield few_failures(failures, requests, load.max_failed, alpha)
    figure = f"latency ({percent(load.quantile)} quantile) at {load.rate:g}/s"
    if load.max_ms is not None:
        milliseconds = 1000 * np.array([one.quantile(load.quantile) for one in rounds[0]])
        yield below_limit("load/limit", f"{figure}, ms", milliseconds, load.max_ms, alpha)
    if not baseline:
        yield Check("load/latency", Status.SKIPPED, "there is nothing to compare with: no --baseline-url was given")
        return
    slowness = Rounds(*(np.array([one.quantile(load.quantile) for one in each]) for each in rounds))
    yield compare_rounds("load/latency", figure, slowness, load.max_ratio, alpha)
    pace = Rounds(*(np.array([one.seconds_an_answer for one in each]) for each in rounds))
    yield compare_rounds("load/throughput", "time for each right answer", pace, load.max_ratio, alpha)


def _unseen_items(cases: Sequence[Case]) -> Iterator[Item]:
    """Gives the cases in turn, each a question and an image file that no cache has seen.

    Bytes after an image's end are not read.
    """
    for case in cycle(cases):
        nonce = os.urandom(8)
        yield Item(f"{case.question} ({nonce.hex()})", case.answers, (InlineImage(case.image + nonce),))


async def run_round(client: AsyncClient, items: Iterable[Item], load: Load) -> Round:
    """Returns how long each answer took. Requests are due at a fixed rate whatever the server does."""

    async def ask(item: Item, due: float) -> float:
        logits = await ask_logits(client, item)
        return time.perf_counter() - due if logits and None not in logits else NO_ANSWER

    count = max(1, round(load.rate * load.seconds))
    start = time.perf_counter()
    under_way = []
    for number, item in zip(range(count), items, strict=False):
        due = start + number / load.rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        under_way.append(asyncio.create_task(ask(item, due)))
    seconds = await asyncio.gather(*under_way)
    return Round(seconds, time.perf_counter() - start)


@dataclass(frozen=True)
class Rounds:
    """A figure of each round, the same rounds for both."""

    candidate: Floats
    baseline: Floats


def compare_rounds(name: str, figure: str, rounds: Rounds, max_ratio: float, alpha: float) -> Check:
    """Returns the check of candidate over baseline.

    It is a paired t test on logarithms, so what slows the whole machine slows both.
    """
    bounds = _mean_with_bounds(np.log(rounds.candidate / rounds.baseline), alpha)
    value, low, high = (math.exp(bound) for bound in bounds)
    what = f"{figure}: {value:.2f} times the baseline's ({low:.2f} to {high:.2f}); must be below {max_ratio:g}"
    return Check(name, status_of(high < max_ratio, low > max_ratio), what, value, low, high, max_ratio)


def below_limit(name: str, figure: str, rounds: Floats, limit: float, alpha: float) -> Check:
    """Returns the check of one endpoint's mean over the rounds, which must be below the limit."""
    value, low, high = _mean_with_bounds(rounds, alpha)
    what = f"{figure}: {value:.1f} ({low:.1f} to {high:.1f}); must be below {limit:g}"
    return Check(name, status_of(high < limit, low > limit), what, value, low, high, limit)


def _mean_with_bounds(values: Floats, alpha: float) -> tuple[float, float, float]:
    """Returns the mean and its one-sided bounds."""
    seen = float(values.mean())
    if not np.ptp(values):
        return seen, seen, seen
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 2 * alpha)
    return seen, float(low), float(high)


def few_failures(failures: int, n: int, limit: float, alpha: float) -> Check:
    """Returns the check of the share of requests without a right answer, with exact bounds."""
    interval = stats.binomtest(failures, n).proportion_ci(1 - 2 * alpha, method="exact")
    low, high = float(interval.low), float(interval.high)
    what = f"{failures} of {n} requests had no right answer in time; fewer than {percent(limit)} may"
    return Check("load/failed", status_of(high < limit, low > limit), what, failures / n, low, high, limit, n)
