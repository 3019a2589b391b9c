"""Scores through a bad network and across a server's death: the right ones or none, never another's."""

import asyncio
import random

import pytest

from clients.fault_proxy import FAULTS, Faults, http_proxy, resetting_proxy
from clients.processes import Process
from medreward.clients import AsyncClient, Patience, Score, Triple, VersionChanged
from pictures import jpeg

PATIENT = Patience(seconds=300)

pytestmark = pytest.mark.slow


def triples(count: int, responses: int = 8) -> list[Triple]:
    """In groups of that many, mixed."""
    made = [Triple(jpeg(n // responses % 50), f"question {n // responses}", f"response {n}") for n in range(count)]
    random.Random(count).shuffle(made)
    return made


async def undisturbed(server: Process, asked: list[Triple]) -> list[Score]:
    async with AsyncClient(server.url("http")) as client:
        scores = await client.score_many(asked)
    assert len({score.reward for score in scores}) == len(asked)
    return scores


def check(scores: list[Score], expected: list[Score]) -> None:
    """To the last bit, or an explicit error; with this much patience, hardly any error."""
    assert len(scores) == len(expected)
    for score, right in zip(scores, expected, strict=True):
        assert score == right or (score.error and score.message and score.reward is None)
    assert sum(score.error is None for score in scores) >= 0.99 * len(scores)


@pytest.mark.parametrize("seed", [1, 2])
async def test_spoilt_replies_cost_retries_and_no_score(server: Process, seed: int) -> None:
    asked = triples(5_000)
    expected = await undisturbed(server, asked)
    faults = Faults(0.05, seed)
    async with (
        http_proxy(server.port, faults) as port,
        AsyncClient(f"http://127.0.0.1:{port}", timeout=30, patience=PATIENT, affinity=True) as client,
    ):
        check(await client.score_many(asked), expected)
    assert all(faults.done[fault] for fault in FAULTS), faults.done


async def test_replies_that_all_come_twice_are_told_apart(server: Process) -> None:
    asked = triples(200)
    faults = Faults(1.0, 3)
    faults.next = lambda: "duplicate"  # type: ignore[method-assign]
    async with (
        http_proxy(server.port, faults) as port,
        AsyncClient(f"http://127.0.0.1:{port}", timeout=30, patience=PATIENT, affinity=True, concurrency=2) as client,
    ):
        assert await client.score_many(asked) == await undisturbed(server, asked)


async def test_broken_connections_under_grpc_cost_retries_and_no_score(server: Process) -> None:
    asked = triples(1_000)
    expected = await undisturbed(server, asked)
    async with (
        resetting_proxy(server.grpc_port, 0.1, 4) as port,
        AsyncClient(f"grpc://127.0.0.1:{port}", timeout=30, patience=PATIENT, affinity=True) as client,
    ):
        check(await client.score_many(asked), expected)


async def test_a_server_that_dies_and_comes_back_costs_no_score(server: Process, killable: Process, door: str) -> None:
    asked = triples(3_000)
    expected = await undisturbed(server, asked)
    dead = asyncio.Event()

    def kill_in_the_middle(done: int, count: int) -> None:
        if not dead.is_set() and done > count / 3:
            killable.kill()
            dead.set()

    async def come_back() -> None:
        await dead.wait()
        await asyncio.to_thread(killable.start)

    back = asyncio.create_task(come_back())
    async with AsyncClient(killable.url(door), affinity=True, patience=PATIENT) as client:
        scores = await client.score_many(asked, progress=kill_in_the_middle)
    await back
    assert scores == expected


async def test_a_server_that_comes_back_with_another_model_is_noticed(
    killable: Process, tiny_folder: str, door: str
) -> None:
    async with AsyncClient(killable.url(door), patience=PATIENT) as client:
        await client.score(None, "q", ["r"])
        pinned = client.fingerprint
        killable.kill()
        killable.flags = ("--model", str(tiny_folder))
        killable.start()
        with pytest.raises(VersionChanged, match=r"tiny .* now\. This client is pinned to fake "):
            await client.score_many([(jpeg(1), f"q {n}", "r") for n in range(100)])
        assert client.fingerprint == pinned
