"""A worker that is killed in mid-batch under trainers' routes costs retries or the documented error, never a number."""

import asyncio
import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from api.compat.shapes import ROUTES, reward
from commands import Served, serving
from faults.outside import replaced, state, until, worker
from medreward.errors import RETRYABLE
from serving import Server

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
