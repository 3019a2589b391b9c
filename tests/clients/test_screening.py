"""Verdicts through the client, and the decorator that lets an answer through only where it is allowed. Whatever fails,
nothing is allowed."""

import asyncio
import pickle
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clients.canned import Answer, Canned, Request, canned, problem, right_answer
from clients.processes import Process
from medreward.backends.fake import FAKE_MANIFEST
from medreward.clients import (
    AsyncClient,
    Client,
    ClientError,
    NotAllowed,
    NotScored,
    Patience,
    Refused,
    Screened,
    Unreachable,
    screened,
)
from medreward.types import Verdict
from pictures import png
from policies import policy_text, publish, threshold
from serving import Server, running
from waiting import until

SHORT = Patience(seconds=0.3)
DOWN = "http://127.0.0.1:9"


def write_policies(folder: Path) -> Path:
    rules = {"lax": threshold("all", "allow", -99.0), "strict": threshold("none", "allow", 99.0)}
    rules["hard"] = threshold("each", "block", -99.0, "overall")
    for name, text in rules.items():
        publish(folder, policy_text(text, name, fingerprint=FAKE_MANIFEST.fingerprint), name)
    return folder


@pytest.fixture(scope="module")
async def deciding(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running(policies=write_policies(tmp_path_factory.mktemp("policies")), default_policy="lax") as server:
        yield server


@pytest.fixture
async def client(deciding: Server, door: str) -> AsyncIterator[AsyncClient]:
    port = deciding.grpc_port if door == "grpc" else deciding.port
    async with AsyncClient(f"{door}://127.0.0.1:{port}", patience=SHORT) as client:
        yield client


# verdicts


async def test_a_verdict_has_its_reason_and_names_its_policy(deciding: Server, client: AsyncClient) -> None:
    first, second = await client.screen(png(), "q?", ["yes", "no"], policy="strict", department="ward")
    item = {"image": b64encode(png()).decode(), "question": "q?", "responses": ["yes", "no"]}
    asked = {"items": [item], "policy": "strict"}
    expected = (await deciding.rest.post("/v1/screen", json=asked)).json()
    for result, there in zip((first, second), expected["results"], strict=True):
        assert (result.verdict, result.margin) == (there["verdict"], there["margin"])
        assert [msgspec.to_builtins(reason) for reason in result.reasons] == there["reasons"]
        assert result.logits == there["logits"]
        assert msgspec.to_builtins(result.policy) == expected["policy"]
        assert not result.allowed
    assert first.decision_id == second.decision_id != expected["decision_id"]


async def test_the_default_policy_decides_and_the_lane_is_interactive(deciding: Server, client: AsyncClient) -> None:
    (result,) = await client.screen(None, "q?", ["yes"])
    assert result.allowed
    assert result.policy
    assert result.policy.name == "lax"
    metrics = (await deciding.admin.get("/metrics")).text
    assert 'lane="bulk",route="/v1/screen"' not in metrics


async def test_what_the_server_cannot_score_is_unscored_and_its_neighbour_is_not(client: AsyncClient) -> None:
    assert [(each.verdict, each.error) for each in await client.screen(None, "", ["yes"])] == [
        (Verdict.UNSCORED, "empty_question")
    ]
    bad, good = await client.screen(None, "q?", ["\ud800", "yes"], on_failure="unscored")
    assert (bad.verdict, bad.error, good.verdict) == (Verdict.UNSCORED, "bad_text", Verdict.ALLOW)


async def test_a_changed_model_does_not_stop_screening_unless_it_is_pinned(client: AsyncClient, door: str) -> None:
    await client.score(None, "q?", ["yes"])
    client._tries.fingerprint = "sha256:before"  # what an update of the server looks like
    assert (await client.screen(None, "q?", ["yes"]))[0].allowed
    with pytest.raises(ClientError, match="pinned"):
        await client.score(None, "q?", ["yes"])


@pytest.mark.parametrize(("wrong", "says"), [({"policy": "none"}, "policy_unknown"), ({"lane": "slow"}, "slow")])
async def test_what_is_asked_wrongly_is_raised(client: AsyncClient, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises((Refused, ValueError), match=says):
        await client.screen(None, "q?", ["yes"], **wrong)


# failures


def with_verdicts(request: Request, **changed: Any) -> Answer:
    """What a server answers; `changed` replaces fields of each result."""
    status, headers, body = right_answer(request)
    if request.method != "POST":
        return status, headers, body
    reply = msgspec.json.decode(body)
    for result in reply["results"]:
        result |= {"verdict": "allow", "reasons": [], "margin": None} | changed
    reply |= {"policy": {"name": "lax", "version": "1", "digest": "sha256:0"}, "decision_id": "1"}
    return status, headers, msgspec.json.encode(reply)


def half(request: Request) -> Answer:
    """All of the answer but its end, as from a server that is killed."""
    status, headers, body = with_verdicts(request)
    return status, headers | {"Connection": "close"}, body[:-20]


UNSCORED_ERROR = {"status": "error", "error": {"code": "worker_lost", "message": "lost", "field": ""}, "scores": None}
FAILURES: dict[str, Callable[[Request], Answer | None]] = {
    "500": lambda _: problem(500, "internal"),
    "503 html": lambda _: (503, {}, b"<html>"),
    "not ready": lambda _: problem(503, "not_ready"),
    "rubbish": lambda _: (200, {}, b"allow"),
    "a score without a verdict": right_answer,
    "a verdict that is none": lambda request: with_verdicts(request, verdict="ok"),
    "a verdict of null": lambda request: with_verdicts(request, verdict=None),
    "an error that is allowed": lambda request: with_verdicts(request, **UNSCORED_ERROR),
    "another response's verdict": lambda request: with_verdicts(request, response=1),
    "another call's": lambda request: (200, {"X-Request-Id": "x"}, with_verdicts(request)[2]),
    "cut short": half,
    "redirect": lambda _: (302, {"Location": "/allow"}, b""),
    "no such route": lambda _: problem(404, "not_found"),
    "silent": lambda _: None,
}


@pytest.fixture(params=FAILURES)
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AbstractAsyncContextManager[Canned]:
    monkeypatch.setattr("medreward.clients.rest.SLACK_S", 0.1)
    return canned(FAILURES[request.param])


def impatient(url: str) -> AsyncClient:
    return AsyncClient(url, patience=SHORT, timeout=0.2)


async def test_a_canned_server_is_believed() -> None:
    async with canned(with_verdicts) as server, impatient(server.url) as client:
        assert (await client.screen(None, "q?", ["yes"]))[0].allowed


async def test_no_failure_allows_an_answer(failing: AbstractAsyncContextManager[Canned]) -> None:
    async with failing as server, impatient(server.url) as client:
        with pytest.raises((Refused, NotScored)):
            await client.screen(None, "q?", ["yes"])
        (result,) = await client.screen(None, "q?", ["yes"], on_failure="unscored")
    assert (result.verdict, result.policy, result.decision_id) == (Verdict.UNSCORED, None, None)
    assert result.error
    assert result.message


async def test_a_server_that_is_down(door: str) -> None:
    async with impatient(f"{door}://127.0.0.1:9") as client:
        with pytest.raises(Unreachable):
            await client.screen(png(), "q?", ["yes"])
        results = await client.screen(png(), "q?", ["yes", "no"], on_failure="unscored")
    assert [(each.verdict, each.error) for each in results] == [(Verdict.UNSCORED, "unreachable")] * 2


async def test_an_unscored_verdict_that_may_pass_is_asked_for_again() -> None:
    answers = [UNSCORED_ERROR | {"verdict": "unscored"}, {}]

    async with (
        canned(lambda request: with_verdicts(request, **answers.pop(0))) as server,
        AsyncClient(server.url) as client,
    ):
        assert (await client.screen(None, "q?", ["yes"]))[0].allowed


@pytest.mark.slow
async def test_a_server_that_is_killed_in_mid_call(tmp_path: Path) -> None:
    policies = f"--policies={write_policies(tmp_path / 'policies')}"
    server = Process(tmp_path, ("--model=fake", policies, "--default-policy=lax", "--fake-delay-ms=3000"))
    await asyncio.to_thread(server.start)
    try:
        async with (
            AsyncClient(server.url("http"), patience=SHORT) as http,
            AsyncClient(server.url("grpc"), patience=SHORT) as rpc,
        ):
            asked = [client.screen(None, f"{client}?", ["yes"], on_failure="unscored") for client in (http, rpc)]
            asking = asyncio.gather(*asked)
            await until(lambda: server.count("medreward_requests_in_flight") == 2)
            server.kill()
            results = await asking
    finally:
        server.kill()
    assert [(result.verdict, result.error) for (result,) in results] == [(Verdict.UNSCORED, "unreachable")] * 2


# the decorator


def async_answer(client: AsyncClient, **options: Any) -> Callable[..., Awaitable[Any]]:
    @screened(client, **options)
    async def answer(question: str, image: object = None, style: str = "short") -> str:
        return f"{style} answer to {question}"

    return answer


async def test_an_allowed_answer_comes_through(client: AsyncClient) -> None:
    assert await async_answer(client)("q?", style="long") == "long answer to q?"


async def test_any_other_verdict_raises_with_its_reason(client: AsyncClient) -> None:
    with pytest.raises(NotAllowed, match=r"review by otherwise \(decision \w+\)") as refused:
        await async_answer(client, policy="strict")("q?", png())
    again = pickle.loads(pickle.dumps(refused.value))  # noqa: S301 (a trainer raises it in processes of a pool)
    assert again.screened == refused.value.screened
    assert "answer to" not in str(refused.value)
    with pytest.raises(NotAllowed, match="block by each"):
        await async_answer(client, policy="hard")("q?")
    with pytest.raises(NotAllowed, match="unscored by policy_unknown"):
        await async_answer(client, policy="none")("q?")


async def test_a_handler_takes_the_place_of_the_answer(client: AsyncClient) -> None:
    async def ask_a_person(result: str, decided: Screened) -> tuple[str, Verdict]:
        return result, decided.verdict

    answer = async_answer(client, policy="hard", otherwise=ask_a_person)
    assert await answer("q?") == ("short answer to q?", Verdict.BLOCK)


async def test_no_failure_lets_an_answer_through(failing: AbstractAsyncContextManager[Canned]) -> None:
    async with failing as server, impatient(server.url) as client:
        with pytest.raises(NotAllowed, match="unscored"):
            await async_answer(client)("q?")


@pytest.fixture
def blocking(deciding: Server) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{deciding.port}") as client:
        yield client


async def test_functions_that_are_not_async(blocking: Client) -> None:
    @screened(blocking, question="asked", image=None, text=lambda reply: reply["text"])
    def answer(asked: str) -> dict[str, str]:
        return {"text": f"answer to {asked}"}

    assert await asyncio.to_thread(answer, "q?") == {"text": "answer to q?"}
    strict = screened(blocking, policy="strict", otherwise=lambda result, decided: decided.verdict)(lone)
    assert await asyncio.to_thread(strict, "q?", None) is Verdict.REVIEW
    with pytest.raises(TypeError, match="give `text`"):
        await asyncio.to_thread(screened(blocking)(number), "q?", None)


def lone(question: str, image: object) -> str:
    return question


def number(question: str, image: object) -> int:
    return len(question)


def test_functions_that_are_not_async_with_the_server_down() -> None:
    with Client(DOWN) as client:
        with pytest.raises(NotAllowed, match="unscored by unreachable"):
            screened(client)(lone)("q?", None)
        fallback = screened(client, otherwise=lambda result, decided: f"ask a person: {decided.error}")(lone)
        assert fallback("q?", None) == "ask a person: unreachable"


def test_what_cannot_be_screened_is_refused_when_it_is_decorated() -> None:
    async def asynchronous(question: str, image: object) -> str:
        return question

    def in_parts(question: str, image: object) -> Iterator[str]:
        yield question

    def without_image(question: str) -> str:
        return question

    with Client(DOWN) as client:
        for function, says in ((asynchronous, "AsyncClient"), (in_parts, "parts"), (without_image, "no parameter")):
            with pytest.raises(TypeError, match=says):
                screened(client)(function)
