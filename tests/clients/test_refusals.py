"""What the client makes of replies that are no scores, sent by a server that answers as the test tells it to."""

import asyncio
import inspect
import time
from base64 import b64decode
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from clients.canned import Answer, Request, canned, problem, right_answer
from clients.processes import Process
from medreward.clients import AsyncClient, Client, ClientError, Patience, Refused, Unreachable, VersionChanged
from medreward.clients.rest import RestTransport
from medreward.types import Item, ScoreRequest
from pictures import png
from waiting import until

pytestmark = pytest.mark.slow

SHORT = Patience(seconds=1.0)


def first(*answers: Answer, then: Callable[[Request], Answer] = right_answer) -> Callable[[Request], Answer]:
    left = list(answers)
    return lambda request: left.pop(0) if left else then(request)


def of_a_text(wanted: str, answer: Answer) -> Callable[[Request], Answer]:
    return lambda request: answer if wanted in request.body.decode() else right_answer(request)


HTML = b"<html>Bad gateway</html>"
NOT_MEDREWARDS_404: Answer = (404, {}, HTML)
REPLIES_THAT_PASS = {
    "html of a proxy": (502, {}, HTML),
    "rubbish": (200, {}, b"\x00\x01"),
    "html and 200": (200, {"Content-Type": "text/html"}, HTML),
    "other json": (200, {}, b'{"results": []}'),
    "cut json": (200, {}, b'{"id": "x", "mod'),
    "encoding that is none": (200, {"Content-Encoding": "gzip"}, b"no gzip"),
    "another call's": (200, {"X-Request-Id": "another"}, b"{}"),
    "another call's refusal": (422, {"X-Request-Id": "another"}, b'{"code": "bad_text", "detail": "x"}'),
    "not ready": problem(503, "not_ready"),
    "overloaded": problem(429, "overloaded"),
    "a fault": problem(500, "internal"),
}


@pytest.mark.parametrize("answer", REPLIES_THAT_PASS.values(), ids=REPLIES_THAT_PASS)
async def test_what_may_pass_is_tried_again(answer: Answer) -> None:
    async with canned(first(answer, answer)) as server, AsyncClient(server.url) as client:
        scores = await client.score(None, "q", ["a", "bcd"])
    assert [score.reward for score in scores] == [1, 3]
    assert len(server.asked) == 3


@pytest.mark.parametrize("answer", REPLIES_THAT_PASS.values(), ids=REPLIES_THAT_PASS)
async def test_what_does_not_pass_ends_in_an_error_per_response(answer: Answer) -> None:
    started = time.monotonic()
    async with canned(lambda _: answer) as server, AsyncClient(server.url, patience=SHORT) as client:
        scores = await client.score(None, "q", ["a", "b"])
    assert all(score.error and score.message and score.reward is None for score in scores)
    assert time.monotonic() - started < 20  # a fifth of a second


def swapped(request: Request) -> Answer:
    status, headers, body = right_answer(request)
    return status, headers, body.replace(b'"response":0', b'"response":9')


def doubled(request: Request) -> Answer:
    status, headers, body = right_answer(request)
    return status, headers, body.replace(b'"response":1', b'"response":0')


def short(request: Request) -> Answer:
    status, headers, body = right_answer(request)
    return status, headers, body[: body.index(b',{"item":0,"response":1')] + b"]}"


@pytest.mark.parametrize("wrong", [swapped, doubled, short])
async def test_results_that_do_not_fit_the_call_are_not_taken(wrong: Callable[[Request], Answer]) -> None:
    async with canned(wrong) as server, AsyncClient(server.url, patience=SHORT) as client:
        scores = await client.score(None, "q", ["a", "b"])
    assert [score.error for score in scores] == ["garbled"] * 2


async def test_a_connection_that_runs_one_reply_behind_is_left_at_once() -> None:
    async with canned(right_answer) as server:
        transport = RestTransport(server.url, 1, 5, {})
        requests = [ScoreRequest(str(n), (Item("q", ("r" * n,)),)) for n in range(4)]
        server.copies = 2
        await transport.score(requests[1], None)
        server.copies, server.pause_s = 1, 0.1
        with pytest.raises(Refused, match="garbled"):
            await transport.score(requests[2], None)
        assert (await transport.score(requests[3], None)).scores[0][0].reward == 3
        await transport.close()


@pytest.mark.parametrize("host", ["127.0.0.1:9", "no-such-host.invalid:8"])
async def test_a_server_that_was_never_there_is_not_waited_for(door: str, host: str) -> None:
    started = time.monotonic()
    async with AsyncClient(f"{door}://{host}") as client:
        for asking in (client.score(png(), "q", ["r"]), client.score(None, "q", ["r"]), client.model()):
            with pytest.raises(Unreachable, match=rf"{door}://{host}.* Check the URL"):
                await asking
    assert time.monotonic() - started < 60  # under a second; with patience, 120


async def test_a_wrong_door_is_not_waited_for(server: Process) -> None:
    started = time.monotonic()
    for url in (server.url("grpc").replace("grpc:", "http:"), server.url("http").replace("http:", "grpc:")):
        async with AsyncClient(url, patience=SHORT) as client:
            with pytest.raises(Refused):
                await client.model()
    async with AsyncClient(server.url("http").replace("http:", "https:")) as client:
        with pytest.raises(Unreachable, match="SSL"):
            await client.score(None, "q", ["r"])
    assert time.monotonic() - started < 60


async def test_a_404_of_somebody_else_is_a_wrong_url() -> None:
    async with canned(lambda _: NOT_MEDREWARDS_404) as server, AsyncClient(server.url) as client:
        with pytest.raises(Unreachable, match=rf"{server.url}.* 404"):
            await client.score(png(), "q", ["r"])
    assert len(server.requests) == 1


async def test_a_404_of_a_proxy_before_a_server_that_was_there_passes() -> None:
    answers = [right_answer, lambda _: NOT_MEDREWARDS_404, right_answer]
    async with canned(lambda request: answers.pop(0)(request)) as server, AsyncClient(server.url) as client:
        assert [(await client.score(None, "q", ["abc"]))[0].reward for _ in range(2)] == [3, 3]
    assert len(server.asked) == 3


async def test_a_server_that_was_there_is_waited_for() -> None:
    async with AsyncExitStack() as life:
        server = await life.enter_async_context(canned(right_answer))
        async with AsyncClient(server.url, patience=SHORT) as client:
            await client.score(None, "q", ["r"])
            await life.aclose()
            (score,) = await client.score(None, "q", ["r"])
    assert score.error == "unreachable"
    assert server.url in (score.message or "")


async def test_a_server_that_is_only_starting_may_be_waited_for() -> None:
    starting = first(NOT_MEDREWARDS_404, NOT_MEDREWARDS_404)
    async with canned(starting) as server, AsyncClient(server.url, patience=Patience(start_seconds=60)) as client:
        assert (await client.score(None, "q", ["abc"]))[0].reward == 3
    async with (
        canned(lambda _: NOT_MEDREWARDS_404) as server,
        AsyncClient(server.url, patience=Patience(start_seconds=0.5)) as client,
    ):
        with pytest.raises(Unreachable):
            await client.score(None, "q", ["abc"])
    assert len(server.asked) > 1


async def test_a_password_in_the_url_is_in_no_message() -> None:
    async with AsyncClient("http://x:secret@127.0.0.1:9") as client:
        with pytest.raises(Unreachable) as refused:
            await client.model()
    assert "secret" not in str(refused.value)


async def test_retry_after_is_waited_for() -> None:
    started = time.monotonic()
    async with canned(first(problem(503, "overloaded", Retry_After="1"))) as server, AsyncClient(server.url) as client:
        (score,) = await client.score(None, "q", ["abc"])
    assert score.reward == 3
    assert 1 <= time.monotonic() - started < 20


async def test_a_retry_after_beyond_patience_is_not_waited_for() -> None:
    started = time.monotonic()
    async with (
        canned(lambda _: problem(503, "overloaded", Retry_After="3000")) as server,
        AsyncClient(server.url) as client,
    ):
        (score,) = await client.score(None, "q", ["abc"])
    assert score.error == "overloaded"
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(("status", "code"), [(401, "unauthorised"), (403, "forbidden"), (404, "not_found")])
async def test_what_no_retry_mends_is_raised_at_once(status: int, code: str) -> None:
    async with canned(lambda _: problem(status, code)) as server, AsyncClient(server.url) as client:
        with pytest.raises(Refused, match=code):
            await client.score_many([(png(), "q", "r"), (None, "q", "r")])
    assert len(server.requests) <= 2


@pytest.mark.parametrize("answer", [problem(413, "body_too_large"), problem(422, "invalid_field"), (413, {}, HTML)])
async def test_a_refused_text_takes_no_neighbour(answer: Answer) -> None:
    asked = [(None, f"q {n % 3}", "poison" if n == 17 else "r" * (n + 1)) for n in range(40)]
    async with canned(of_a_text("poison", answer)) as server, AsyncClient(server.url) as client:
        scores = await client.score_many(asked)
    assert [score.reward for score in scores] == [None if n == 17 else n + 1 for n in range(40)]
    assert scores[17].error in ("body_too_large", "invalid_field")
    assert len(server.asked) < 15


async def test_a_fault_that_stays_is_tried_three_times() -> None:
    async with canned(lambda _: problem(500, "internal")) as server, AsyncClient(server.url) as client:
        scores = await client.score(None, "q", ["a", "b"])
    assert [score.error for score in scores] == ["internal"] * 2
    assert len(server.asked) == 3


async def test_headers_say_lane_deadline_key_and_image() -> None:
    async with (
        canned(right_answer) as server,
        AsyncClient(server.url, key="secret", lane="interactive", timeout=25) as client,
    ):
        await client.score(png(), "q", ["r"])
        await client.score(None, "q", ["r"])
    upload, about_image, text_only = server.requests
    assert (upload.method, upload.path, upload.body) == ("PUT", "/v1/images", png())
    image = about_image.items[0]["image"]
    assert upload.headers["x-affinity-key"] == about_image.headers["x-affinity-key"]
    assert image == {"sha256": upload.headers["x-affinity-key"]}
    for asked in (about_image, text_only):
        assert asked.headers["x-deadline-ms"] == "25000"
        assert asked.headers["x-lane"] == "interactive"
    assert all(request.headers["authorization"] == "Bearer secret" for request in server.requests)
    assert "x-affinity-key" not in text_only.headers
    assert "x-model-fingerprint" not in about_image.headers
    assert text_only.headers["x-model-fingerprint"] == "sha256:a"
    assert len({request.headers["x-request-id"] for request in server.requests}) == 3


async def test_an_image_that_is_not_stored_travels_with_its_call() -> None:
    async with canned(right_answer) as server, AsyncClient(server.url, store_images=False) as client:
        await client.score(png(), "q", ["a", "b"])
        (request,) = server.requests
        assert b64decode(request.items[0]["image"]["base64"]) == png()


async def test_with_affinity_a_call_carries_one_image() -> None:
    asked = [(png(seed % 4), f"q {seed}", "r") for seed in range(24)]
    async with canned(right_answer) as server, AsyncClient(server.url, affinity=True) as client:
        await client.score_many(asked)
    for request in server.asked:
        images = {item["image"]["sha256"] for item in request.items}
        assert images == {request.headers["x-affinity-key"]}


async def test_a_cancelled_call_leaves_nothing_running() -> None:
    def never_scores(request: Request) -> Answer | None:
        return right_answer(request) if request.method == "PUT" else None

    async with canned(never_scores) as server, AsyncClient(server.url) as client:
        asking = asyncio.create_task(client.score_many([(png(n), "q", "r") for n in range(64)]))
        await until(lambda: len(server.asked) == 4)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: server.open == 0)
        await until(lambda: not clients_tasks())


def clients_tasks() -> list[str]:
    """Tasks that run the client's own code; the loop is the whole run's, so others' tasks come and go."""
    running = [coroutine for task in asyncio.all_tasks() if inspect.iscoroutine(coroutine := task.get_coro())]
    return [each.__qualname__ for each in running if "/medreward/clients/" in each.cr_code.co_filename]


async def test_an_upload_that_was_cancelled_is_made_by_who_still_needs_it() -> None:
    answers = [None]

    def first_never(request: Request) -> Answer | None:
        return answers.pop() if answers else right_answer(request)

    async with canned(first_never) as server, AsyncClient(server.url) as client:
        given_up = asyncio.create_task(client.score(png(), "q", ["r"]))
        await until(lambda: len(server.requests) == 1)
        waiting = asyncio.create_task(client.score(png(), "q", ["abc"]))
        given_up.cancel()
        assert [score.reward for score in await waiting] == [3]


async def test_a_deadline_of_the_client_ends_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medreward.clients.rest.SLACK_S", 0.1)
    started = time.monotonic()
    async with canned(lambda _: None) as server, AsyncClient(server.url, timeout=0.2, patience=SHORT) as client:
        (score,) = await client.score(None, "q", ["r"])
    assert score.error == "unreachable"
    assert time.monotonic() - started < 20


# which model answers


async def test_another_model_than_the_named_one_is_refused(server: Process, door: str) -> None:
    async with AsyncClient(server.url(door)) as client:
        there = await client.model()
    async with AsyncClient(server.url(door), pin="sha256:other") as client:
        with pytest.raises(VersionChanged, match="pinned to sha256:other") as refused:
            await client.score(None, "q", ["r"])
    assert f"{there.name} {there.version} ({there.fingerprint})" in str(refused.value)
    assert f"pin='{there.fingerprint}'" in str(refused.value)
    assert (refused.value.wanted, refused.value.found) == ("sha256:other", there)


async def test_another_model_that_does_not_say_its_name_is_refused() -> None:
    async with (
        canned(lambda _: problem(409, "version_changed")) as server,
        AsyncClient(server.url, pin="sha256:x") as client,
    ):
        with pytest.raises(VersionChanged, match=r"another model now.*sha256:x"):
            await client.score(None, "q", ["r"])


def two_models() -> Callable[[Request], Answer]:
    """A rolling change: every other reply is of the new model, and no server knows the pin's header."""
    turns = iter(range(1000))
    return lambda request: right_answer(request, f"sha256:{'ab'[next(turns) % 2]}")


async def test_scores_of_two_models_are_never_mixed() -> None:
    asked = [(None, f"q {n}", "r") for n in range(200)]
    async with canned(two_models()) as server, AsyncClient(server.url) as client:
        with pytest.raises(VersionChanged, match=r"m 1 \(sha256:(a|b)\) now.* pinned to m 1 \(sha256:(?!\1)"):
            await client.score_many(asked)
        fingerprint = client.fingerprint
        with pytest.raises(ClientError, match="pinned to"):
            await client.score_many(asked)
        assert client.fingerprint == fingerprint


async def test_without_a_pin_any_model_will_do() -> None:
    async with canned(two_models()) as server, AsyncClient(server.url, pin=False) as client:
        scores = await client.score_many([(None, f"q {n}", "r") for n in range(200)])
    assert all(score.reward == 1 for score in scores)
    assert client.fingerprint is None


@pytest.mark.parametrize(
    ("url", "says"),
    [("ftp://x", "begin with"), ("127.0.0.1:8000", "begin with"), ("", "begin with"), ("grpc://", "names no server")],
)
async def test_a_url_of_no_known_kind(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        AsyncClient(url)
    with pytest.raises(ValueError, match=says):
        Client(url)


async def test_a_key_that_no_header_may_have() -> None:
    with pytest.raises(ValueError, match="key has characters"):
        AsyncClient("http://x", key="secret\n")


async def test_calls_share_a_connection() -> None:
    async with canned(right_answer) as server, AsyncClient(server.url) as client:
        for _ in range(5):
            await client.score(None, "q", ["r"])
        assert server.open == 1
