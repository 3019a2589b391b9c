"""A worker that is killed in mid-batch under trainers' routes costs retries or the documented error, never a number."""

import asyncio
import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from api.compat.shapes import ROUTES, ask, reward
from commands import Served, serving
from faults.outside import replaced, state, until, worker
from medreward.errors import RETRYABLE
from serving import Server, running

pytestmark = pytest.mark.slow

#: Several batches of 200 ms, so that a fault falls among them.
SLOW = ("--fake-delay-ms", "200", "--batch-cost", "100", "--score-cache-bytes", "0")
CALLS = 20  # through each route


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("victim"), *SLOW) as served:
        yield served


async def test_a_worker_that_is_killed_under_every_route(victim: Served, fake: Server) -> None:
    asked = [(name, f"Finding {n} of {name}.") for name in ROUTES for n in range(CALLS)]
    expected = [await reward(fake, name, "What is seen?", text) for name, text in asked]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=victim.url, trust_env=False, timeout=120, limits=limits) as client:

        async def post(name: str, text: str) -> httpx.Response:
            path, body, _ = ROUTES[name]
            return await client.post(path.format("fake"), json=body("What is seen?", text))

        calls = asyncio.gather(*(post(*one) for one in asked))
        await until(lambda: state(victim)["requests_in_flight"] >= CALLS)
        hurt = worker(victim)
        os.kill(hurt, signal.SIGKILL)
        await until(replaced(victim, hurt))
        replies: list[httpx.Response] = await calls
    for (name, _), right, reply in zip(asked, expected, replies, strict=True):
        check(name, right, reply)
    after = state(victim)
    assert (after["requests_in_flight"], after["cost_admitted"], after["triples_in_flight"]) == (0, 0, 0)


def check(name: str, right: float, reply: httpx.Response) -> None:
    if reply.status_code == 200:
        assert ROUTES[name][2](reply.json()) == right
    else:
        assert name != "LLaMA-Factory", reply.text
        assert (reply.status_code, reply.json()["code"] in RETRYABLE) == (503, True)


async def test_llama_factory_waits_for_a_server_that_takes_nothing(fake: Server) -> None:
    """Its client has no timeout and no retry: what others are refused for, it is kept waiting for."""
    fake.engine.drain()
    try:
        waiting = asyncio.create_task(reward(fake, "LLaMA-Factory", "What is seen?", "Nothing."))
        path, body, _ = ROUTES["slime"]
        refused = await fake.rest.post(path, json=body("What is seen?", "Nothing."))
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert not waiting.done()
    finally:
        fake.engine.undrain()
    assert await waiting == await reward(fake, "slime", "What is seen?", "Nothing.")


async def test_llama_factory_outlasts_the_deadline_of_a_request() -> None:
    """As when a worker is away for longer than any request may take."""
    async with running(fake_delay_ms=600, deadline_seconds=0.3) as server:
        assert (await ask(server, "slime", "What is seen?", "Nothing.")).json()["code"] == "deadline"
        assert isinstance(await reward(server, "LLaMA-Factory", "What is seen?", "Something."), float)


async def test_it_waits_no_longer_when_the_server_stops() -> None:
    async with running() as server:
        server.engine.drain()
        waiting = asyncio.create_task(ask(server, "LLaMA-Factory", "What is seen?", "Nothing."))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        server.engine.stop()
        refused = await waiting
    assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
