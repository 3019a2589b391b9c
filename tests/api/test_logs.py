"""Nothing of a payload, and no exception's message, reaches the log."""

import json
import logging
import sys
from collections.abc import Iterator
from io import StringIO

import pytest

import pictures
from asking import over_grpc, over_rest, post
from cases import QUESTION, Body, b64, item
from medreward import logs
from medreward.backends.fake import FakeBackend
from medreward.proto import reward_pb2 as pb
from serving import Server, running

CANARY = "Jane-Doe-1961-04-17"
SPOILT = pictures.cut_short(pictures.png()) + CANARY.encode()


@pytest.fixture(params=["debug", "info"])
def log_stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """What a server would write to stderr; the tests' own client is kept out of it."""
    stream = StringIO()
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {logger: logger.level for logger in (root, *map(logging.getLogger, root.manager.loggerDict))}
    root.handlers.clear()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logging.getLogger("httpcore"), "propagate", False)
    logs.configure(request.param)
    yield stream
    root.handlers[:] = handlers
    for logger, level in levels.items():
        logger.setLevel(level)


async def send_the_canary_everywhere(server: Server) -> None:
    bodies: list[Body] = [
        {"question": CANARY, "response": CANARY},
        {"question": QUESTION, "response": CANARY + "\x00"},
        {"question": QUESTION, "response": CANARY * 20_000},
        {"image": CANARY, "question": QUESTION, "response": ""},
        {"image": b64(SPOILT), "question": QUESTION, "response": ""},
        {"image": b64(pictures.dicom()[:-9] + CANARY.encode()), "question": QUESTION, "response": ""},
        {"image": {"url": f"https://example.org/{CANARY}"}, "question": QUESTION, "response": ""},
        {"image": {"sha256": CANARY}, "question": QUESTION, "response": ""},
        {"items": [item(responses=[CANARY, "\x00" + CANARY])]},
    ]
    for body in bodies:
        await over_rest(server, body, {"X-Foo": CANARY})
        if body.get("image") != CANARY:
            await over_grpc(server, body, {"x-foo": CANARY})
    unknown: Body = {"question": QUESTION, "response": "", CANARY: CANARY, "weights": {CANARY: 1}}
    await over_rest(server, unknown)
    await over_rest(server, {"question": QUESTION, "response": "", "weights": {CANARY: 1}})
    await server.rest.post("/score", content=f'{{"{CANARY}'.encode(), headers={"content-type": "application/json"})
    file = {"image": (f"{CANARY}.png", SPOILT, "image/png")}
    await server.rest.post("/score", data={"question": CANARY, "response": CANARY}, files=file)
    await server.rest.put("/v1/images", content=SPOILT)
    await server.rest.get(f"/v1/{CANARY}?name={CANARY}")
    await server.rest.delete(f"/v1/images/{CANARY}")
    await over_rest(server, bodies[0], {"X-Lane": CANARY})
    await over_rest(server, bodies[0], {"X-Deadline-Ms": CANARY})
    await over_rest(server, bodies[0], {"X-Model-Fingerprint": CANARY})


def lines(stream: StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_payload_is_not_logged(log_stream: StringIO) -> None:
    async with running() as server:
        await send_the_canary_everywhere(server)
    assert CANARY not in log_stream.getvalue()
    requests = [line for line in lines(log_stream) if line["event"] == "request"]
    assert len(requests) > 20
    assert set(requests[0]) >= {"time", "level", "request_id", "route", "lane", "code", "ms"}


async def test_an_error_of_the_model_is_logged_by_its_kind_alone(
    log_stream: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: FakeBackend, groups: object) -> None:
        raise ValueError(CANARY)

    async with running() as server:
        monkeypatch.setattr(FakeBackend, "score", broken)
        reply = await post(server, {"items": [item(responses=["a", "b"]), item(response="c")]})
        alone = await post(server, {"question": QUESTION, "response": "a"})
        rpc = await over_grpc(server, {"question": QUESTION, "response": "a"})
    assert [result["error"]["code"] for result in reply.json()["results"]] == ["internal"] * 3
    assert (alone.status_code, alone.json()["code"]) == (500, "internal")
    assert CANARY not in reply.text + alone.text + str(rpc) + log_stream.getvalue()
    assert next(line["error"] for line in lines(log_stream) if line["level"] == "error") == "ValueError"


async def test_a_fault_of_ours_is_logged_with_its_place_but_not_its_message(
    log_stream: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: object) -> None:
        raise RuntimeError(CANARY)

    async with running() as server:
        monkeypatch.setattr(server.engine, "score", broken)
        reply = await post(server, {"question": QUESTION, "response": "a"})
        rpc = await over_grpc(server, {"question": QUESTION, "response": "a"})
        stream = server.stub.ScoreStream(iter([pb.ScoreRequest(items=[pb.Item(question="q", responses=["r"])])]))
        streamed = [message async for message in stream]
    assert CANARY not in reply.text + str(rpc) + str(streamed) + log_stream.getvalue()
    faults = [line for line in lines(log_stream) if line["level"] == "error"]
    assert [fault["error"] for fault in faults] == ["RuntimeError"] * 3
    assert all("broken" in str(fault["at"]) for fault in faults)
