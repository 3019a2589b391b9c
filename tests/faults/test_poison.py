"""A triple that takes every worker down is found and set apart; those that were in its batch get their scores."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from zlib import crc32

import httpx
import pytest

from asking import check_problem
from medreward.engine import serving as engine_serving
from medreward.workers.device.runner import Done
from medreward.workers.device.worker import InlineWorker, WorkerLost
from medreward.workers.frames import GroupFrame
from serving import Server, running

POISON = "arsenic"


class Fragile(InlineWorker):
    """Lost whenever a batch holds the poison."""

    losses = 0

    async def score(self, groups: Sequence[GroupFrame]) -> Done:
        if any(crc32(POISON.encode()) in answer for group in groups for answer in group.answers):
            await asyncio.sleep(0.05)
            Fragile.losses += 1
            raise WorkerLost("crash")
        return await super().score(groups)


@pytest.fixture
async def fragile(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(engine_serving, "InlineWorker", Fragile)
    monkeypatch.setattr(Fragile, "losses", 0)
    async with running(fake_delay_ms=50, score_cache_bytes=0) as server:
        yield server


async def ask(server: Server, response: str) -> httpx.Response:
    return await server.rest.post("/v1/score", json={"question": "What helps?", "response": response})


async def test_neighbours_of_a_poisoned_triple_get_their_scores(fragile: Server, fake: Server) -> None:
    good = [f"remedy {n}" for n in range(31)]
    *replies, poisoned = await asyncio.gather(*(ask(fragile, text) for text in [*good, POISON]))
    expected = [await ask(fake, text) for text in good]
    assert [reply.json()["results"] for reply in replies] == [reply.json()["results"] for reply in expected]
    check_problem(poisoned, 500, "internal", "/response")
    assert 2 <= Fragile.losses <= 7  # by halves, not one by one


async def test_a_poisoned_triple_is_not_tried_again(fragile: Server) -> None:
    check_problem(await ask(fragile, POISON), 500, "internal", "/response")
    assert Fragile.losses == 2
    check_problem(await ask(fragile, POISON), 500, "internal", "/response")
    assert Fragile.losses == 2
    assert (await ask(fragile, "rest")).status_code == 200
