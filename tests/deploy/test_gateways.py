"""The gateways of deploy/gateway, with the real programs: an image has one server, and what that says comes through."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from clients.canned import Answer, Canned, Request, canned, problem, right_answer
from clients.processes import Process
from deploy.gateways import Gateway, gateway
from medreward.clients import AsyncClient, Client, Patience, Triple
from pictures import larger_than, png

pytestmark = pytest.mark.slow

NAMES = ("nginx", "envoy")
SECONDS = 60


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    flags = ("--fake-delay-ms=5", "--batch-cost=200")
    started = [Process(tmp_path_factory.mktemp(f"server{n}"), flags) for n in range(3)]
    for server in started:
        server.start()
    yield started
    for server in started:
        server.kill()


@pytest.fixture(scope="module", params=NAMES)
def before(
    request: pytest.FixtureRequest, servers: list[Process], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway in front of the three servers."""
    folder = tmp_path_factory.mktemp(request.param)
    with gateway(request.param, folder, [(server.port, server.grpc_port) for server in servers]) as ports:
        yield ports


def let_all_take_calls(client: Client, servers: list[Process], first: int) -> None:
    """Asks about other images until each server was asked: a gateway takes one that came back after some seconds."""
    asked = [server.count("medreward_image_encodes_total") for server in servers]
    images = (png(first + n) for n in range(300))
    while not all(
        server.count("medreward_image_encodes_total") > it for server, it in zip(servers, asked, strict=True)
    ):
        client.score(next(images), "are all of you there?", ["yes"])


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_an_image_has_one_server_and_a_killed_one_costs_no_score(
    servers: list[Process], before: Gateway, door: str
) -> None:
    first = before.rest * 1000 + (500 if door == "grpc" else 0)  # images that nobody has asked about
    asked = [Triple(png(first + n % 60), f"question {n % 60}", f"response {n}") for n in range(480)]
    killed, asked_directly, _ = servers
    with Client(before.url(door), affinity=True, timeout=SECONDS, patience=Patience(seconds=300)) as client:
        let_all_take_calls(client, servers, first + 100)
        encodes = [server.count("medreward_image_encodes_total") for server in servers]
        scores = client.score_many(asked)
        new = [server.count("medreward_image_encodes_total") - it for server, it in zip(servers, encodes, strict=True)]
        assert all(new)
        assert sum(new) == 60  # as many as there are images

        def kill(done: int, count: int) -> None:
            if done > count / 3 and not killed.is_dead:
                killed.kill()

        again = client.score_many(asked, progress=kill)
    assert killed.is_dead
    killed.start()
    with Client(asked_directly.url(door)) as client:
        assert client.score_many(asked) == scores == again


def test_a_large_image_comes_through_and_its_id_comes_back(before: Gateway) -> None:
    image = larger_than(5_000_000)
    put = httpx.put(f"{before.url('http')}/v1/images", content=image, headers={"X-Request-Id": "abc"}, timeout=SECONDS)
    assert put.status_code == 201
    assert put.headers["x-request-id"] == "abc"


def test_a_stale_pin_and_a_deadline_are_answered_by_the_server_itself(before: Gateway) -> None:
    for headers, status, code in (
        ({"X-Model-Fingerprint": "sha256:" + "0" * 64}, 409, "version_changed"),
        ({"X-Deadline-Ms": "1"}, 504, "deadline"),
    ):
        asked = {"question": "q", "response": f"r {before.rest} {code}"}
        reply = httpx.post(f"{before.url('http')}/score", json=asked, headers=headers, timeout=SECONDS)
        assert (reply.status_code, reply.json()["code"]) == (status, code)


@pytest.fixture(params=NAMES)
async def canned_ones(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Gateway, list[Canned]]]:
    """A gateway in front of servers that are full, but for the first."""

    def full(asked: Request) -> Answer:
        return right_answer(asked) if asked.method != "POST" else problem(503, "overloaded", retry_after="7")

    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(canned(right_answer))
        others = [await stack.enter_async_context(canned(full)) for _ in range(2)]
        ports = [(it.port, it.port) for it in (good, *others)]
        front = gateway(request.param, tmp_path, ports)
        entered = await asyncio.to_thread(front.__enter__)  # aside, for the canned ones live in this loop
        async with AsyncClient(entered.url("http")) as client:  # a gateway is ready before it has found every server so
            while not good.asked:
                await client.score(png(len(others[0].asked)), "are you there?", ["yes"])
        good.requests.clear()
        yield entered, [good, *others]
        await asyncio.to_thread(front.__exit__, None, None, None)


async def test_a_full_server_passes_a_call_on_with_its_lane_and_deadline(
    canned_ones: tuple[Gateway, list[Canned]],
) -> None:
    front, (good, *_) = canned_ones
    async with AsyncClient(front.url("http"), affinity=True, lane="interactive", timeout=9) as client:
        for n in range(12):
            (score,) = await client.score(png(n), "q", ["four"])
            assert score.reward == 4.0
    for request in good.asked:
        assert request.headers["x-lane"] == "interactive"
        assert request.headers["x-deadline-ms"] == "9000"
        assert len(request.headers["x-affinity-key"]) == 64


async def test_where_all_are_full_the_client_hears_when_to_come_back(tmp_path: Path) -> None:
    def full(asked: Request) -> Answer:
        return right_answer(asked) if asked.method != "POST" else problem(503, "overloaded", retry_after="7")

    for name in NAMES:
        async with canned(full) as one:
            front = gateway(name, tmp_path, [(one.port, one.port)] * 3)
            url = (await asyncio.to_thread(front.__enter__)).url("http")
            async with httpx.AsyncClient() as http:
                reply = await http.post(f"{url}/score", json={}, timeout=SECONDS)
            await asyncio.to_thread(front.__exit__, None, None, None)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "7"), name
        assert reply.json()["code"] == "overloaded"


@pytest.mark.parametrize("name", NAMES)
async def test_where_nobody_is_there_the_gateway_says_so_as_a_server_would(name: str, tmp_path: Path) -> None:
    with gateway(name, tmp_path, [(1, 1)] * 3, is_ready=False) as front:
        async with httpx.AsyncClient() as http:
            reply = await http.post(f"{front.url('http')}/score", json={}, timeout=SECONDS)
        async with AsyncClient(front.url("grpc"), patience=Patience(seconds=1)) as client:
            (score,) = await client.score(None, "q", ["r"])
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert reply.json()["code"] == "not_ready"
    assert score.error == "unreachable"
