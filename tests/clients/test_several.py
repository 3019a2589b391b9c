"""A client of three servers: each image belongs to one; one is killed, one slow, one serves something else."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest

from clients.canned import Answer, Canned, Request, canned, problem, right_answer
from clients.processes import Process
from medreward.clients import AsyncClient, Client, Patience, Score, Triple, Unreachable, VersionChanged
from pictures import png

SECONDS = 60


@pytest.fixture
async def three() -> AsyncIterator[list[Canned]]:
    """Servers that answer whatever is asked; the reward of a response is its length."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(canned(right_answer)) for _ in range(3)]


def several(servers: list[Canned], **options: Any) -> AsyncClient:
    return AsyncClient([server.url for server in servers], **options)


def triples(images: int = 30) -> list[Triple]:
    return [Triple(png(n), f"q{n}", "r" * (n + 1)) for n in range(images)]


def rewards(scores: list[Score]) -> list[float | None]:
    return [score.reward for score in scores]


def images_of(server: Canned) -> set[str]:
    return {item["image"]["sha256"] for request in server.asked for item in request.items}


async def test_each_image_goes_to_one_server_and_comes_back_to_it(three: list[Canned]) -> None:
    async with several(three, concurrency=2) as client:
        for _ in range(2):
            assert rewards(await client.score_many(triples())) == [float(n + 1) for n in range(30)]
    stored = [sum(request.method == "PUT" for request in server.requests) for server in three]
    assert all(stored)
    assert sum(stored) == sum(len(images_of(server)) for server in three) == 30


async def test_urls_may_stand_in_one_text_with_commas(three: list[Canned]) -> None:
    urls = ", ".join(server.url for server in three)
    async with AsyncClient(urls) as client:
        await client.score_many(triples())
    assert all(images_of(server) for server in three)
    with pytest.raises(ValueError, match="names a server twice"):
        AsyncClient([three[0].url, three[0].url])
    with pytest.raises(ValueError, match="does not begin with"):
        AsyncClient(f"{three[0].url},")


async def test_a_server_that_was_never_there_costs_no_score(
    three: list[Canned], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with AsyncClient(["http://127.0.0.1:1", *(server.url for server in three)]) as client:
            assert rewards(await client.score_many(triples())) == [float(n + 1) for n in range(30)]
    assert caplog.text.count("http://127.0.0.1:1 gets no calls for now: cannot reach") == 1
    async with AsyncClient(["http://127.0.0.1:1", "http://127.0.0.1:2"]) as client:
        with pytest.raises(Unreachable):
            await client.score(None, "q", ["r"])


async def test_a_server_that_hangs_is_given_up_and_its_calls_go_elsewhere(three: list[Canned]) -> None:
    hanging = three[0]
    async with several(three, timeout=SECONDS, concurrency=6) as client:
        await client.score_many(triples())  # so that it is known how long they take
        hanging.pause_s = SECONDS
        async with asyncio.timeout(SECONDS / 2):
            assert rewards(await client.score_many(triples(60))) == [float(n + 1) for n in range(60)]


async def test_a_full_server_is_left_for_as_long_as_it_says() -> None:
    def full(request: Request) -> Answer:
        return problem(503, "overloaded", retry_after="30")

    async with canned(full) as one, canned(right_answer) as other:
        async with several([one, other]) as client, asyncio.timeout(SECONDS / 3):
            assert rewards(await client.score_many(triples())) == [float(n + 1) for n in range(30)]
        assert len(one.requests) < 20  # those that were under way when it said so


async def test_a_server_of_another_model_is_left_out_until_none_has_the_pinned_one() -> None:
    def other(request: Request) -> Answer:
        return right_answer(request, "sha256:b")

    async with canned(right_answer) as old, canned(other) as new:
        async with several([old, new], pin="sha256:a") as client:
            assert rewards(await client.score_many(triples())) == [float(n + 1) for n in range(30)]
        assert images_of(new)
        async with several([new], pin="sha256:a") as client:
            with pytest.raises(VersionChanged):
                await client.score_many(triples())


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    """Three processes that serve the fake model."""
    servers = [Process(tmp_path_factory.mktemp(name), ("--fake-delay-ms=5", "--batch-cost=200")) for name in "abc"]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.kill()


@pytest.mark.slow
def test_one_is_killed_and_one_hangs_and_every_score_is_the_right_one(
    server: Process, real: list[Process], door: str
) -> None:
    first = 1000 if door == "grpc" else 2000
    asked = [Triple(png(first + n % 100), f"question {n % 100}", f"response {n}") for n in range(800)]
    with Client(server.url(door)) as client:
        expected = client.score_many(asked)
    killed, _, hung = real
    before = [each.count("medreward_image_encodes_total") for each in real]
    with (
        Client([each.url(door) for each in real], timeout=SECONDS, patience=Patience(seconds=300)) as client,
        ExitStack() as hanging,
    ):
        assert client.score_many(asked[:400]) == expected[:400]
        encodes = [each.count("medreward_image_encodes_total") - it for each, it in zip(real, before, strict=True)]
        assert all(encodes)
        assert sum(encodes) == 100  # as many as there are images

        def spoil(done: int, count: int) -> None:
            if done > count / 4 and not killed.is_dead:
                killed.kill()
            elif done > count / 2 and not hung.is_hanging:
                hanging.enter_context(hung.hanging())

        assert client.score_many(asked, progress=spoil) == expected
        assert killed.is_dead
        assert hung.is_hanging
    killed.start()
