"""A worker or a decoder killed or stopped under load costs nobody a wrong answer, and little time."""

import asyncio
import os
import signal
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import Served, serving
from faults.outside import (
    ask,
    check,
    children,
    decoders,
    held,
    logits,
    metric,
    replaced,
    send,
    state,
    triples,
    until,
    worker,
)
from pictures import png
from serving import Server

pytestmark = pytest.mark.slow

CALLS = 200
UNDER_WAY = 10  # at once; more may never be, where they come as slowly as they are scored
SECONDS_TO_RECOVER = 60.0  # 3 at most, on an idle machine
#: Ten batches or so of 200 ms for these calls, so that a fault falls among them.
SLOW = ("--fake-delay-ms", "200", "--batch-cost", "200", "--score-cache-bytes", "0")


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("victim"), *SLOW) as served:
        yield served


@pytest.fixture(scope="module")
async def expected(fake: Server) -> list[Any]:
    """From a server that nobody hurts."""
    replies = [await fake.rest.post("/v1/score", json=body) for body in triples(CALLS)]
    scores = [logits(reply) for reply in replies]
    assert len({str(score) for score in scores}) == CALLS
    return scores


@pytest.mark.parametrize(("how", "reason"), [(signal.SIGKILL, "crash"), (signal.SIGSTOP, "hang")])
async def test_a_lost_worker(victim: Served, expected: list[Any], how: signal.Signals, reason: str) -> None:
    lost, answered = f'medreward_worker_restarts_total{{reason="{reason}"}}', "medreward_items_total"
    losses, items = metric(victim, lost), metric(victim, answered)
    calls = asyncio.create_task(ask(victim.url, triples(CALLS)))
    await until(lambda: state(victim)["requests_in_flight"] >= UNDER_WAY)
    hurt = worker(victim)
    os.kill(hurt, how)
    assert await until(replaced(victim, hurt)) < SECONDS_TO_RECOVER
    check(await calls, expected, least_scored=CALLS)
    assert metric(victim, lost) == losses + 1
    assert metric(victim, answered) == items + CALLS
    after = state(victim)
    assert (after["requests_in_flight"], after["cost_admitted"], after["triples_in_flight"]) == (0, 0, 0)


async def test_one_of_two_workers_is_lost_and_the_server_stays_ready(tmp_path: Path, expected: list[Any]) -> None:
    with serving(tmp_path, *SLOW, "--workers", "2") as served:
        first, second = (one["pid"] for one in state(served)["workers"])
        calls = asyncio.create_task(ask(served.url, triples(CALLS)))
        await until(lambda: state(served)["requests_in_flight"] >= UNDER_WAY)
        os.kill(first, signal.SIGKILL)
        seen = [state(served)]
        while not both_ready(seen[-1], lost=first):
            assert len(seen) < 5000
            await asyncio.sleep(0.01)
            seen.append(state(served))
        assert all(one["ready"] for one in seen)
        assert second in [one["pid"] for one in seen[-1]["workers"]]
        check(await calls, expected, least_scored=CALLS)
        after = state(served)
    assert (after["requests_in_flight"], after["cost_admitted"], after["triples_in_flight"]) == (0, 0, 0)


def both_ready(seen: dict[str, Any], lost: int) -> bool:
    return all(one["ready"] and one["pid"] != lost for one in seen["workers"])


async def test_readiness_tells_of_a_lost_worker(victim: Served) -> None:
    hurt = worker(victim)
    os.kill(hurt, signal.SIGKILL)
    await until(lambda: not state(victim)["ready"])
    await until(lambda: bool(state(victim)["ready"]))


async def test_a_server_that_stood_still_does_not_blame_its_worker(victim: Served) -> None:
    hung = 'medreward_worker_restarts_total{reason="hang"}'
    before, same = metric(victim, hung), worker(victim)
    victim.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(2.6)  # longer than the silence after which a worker is taken for hung
    victim.process.send_signal(signal.SIGCONT)
    await asyncio.sleep(0.5)
    assert metric(victim, hung) == before
    assert worker(victim) == same


async def test_nothing_grows_with_restarts(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        state(served)
        files, threads, family = held(served, "fd"), held(served, "task"), len(children(served))
        for _ in range(5):
            hurt = worker(served)
            os.kill(hurt, signal.SIGKILL)
            await until(replaced(served, hurt))
        # A connection of this test or a thread of a pool may come and go; five of anything may not.
        await until(lambda: held(served, "fd") <= files + 4)
        await until(lambda: held(served, "task") <= threads + 4)
        assert len(children(served)) == family


async def test_a_decoder_that_died_idle(victim: Served, fake: Server) -> None:
    asked = [body | {"image": b64encode(png(n)).decode()} for n, body in enumerate(triples(8))]
    os.kill(decoders(victim).pop(), signal.SIGKILL)
    await asyncio.sleep(0.2)
    expected = [logits(await fake.rest.post("/v1/score", json=body)) for body in asked]
    check(await ask(victim.url, asked), expected, least_scored=len(asked))


async def test_a_lost_decoder(tmp_path: Path, tiny_folder: Path, tiny: Server) -> None:
    """With a model that sees its pixels: somebody else's would show."""
    asked = [body for body in triples(3 * CALLS, images=3 * CALLS) if "image" in body]
    expected = [logits(await tiny.rest.post("/v1/score", json=body)) for body in asked]
    assert len({str(score) for score in expected}) == CALLS
    with serving(tmp_path, "--model", str(tiny_folder), "--score-cache-bytes", "0", "--decode-seconds", "60") as served:
        pids = decoders(served)
        send(pids, signal.SIGSTOP)
        calls = asyncio.create_task(ask(served.url, asked))
        await until(lambda: state(served)["requests_in_flight"] == CALLS)
        first, *others = sorted(pids)  # each has an image in hand
        os.kill(first, signal.SIGKILL)
        send(others, signal.SIGCONT)
        check(await calls, expected, least_scored=CALLS)
        await until(lambda: len(decoders(served)) == len(pids), SECONDS_TO_RECOVER)
        assert first not in decoders(served)
