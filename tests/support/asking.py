"""One request through either door, its answer in one shape, so that the doors can be compared."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import httpx

from cases import Body, to_message
from medreward.api.rest.reply_shapes import Problem
from medreward.proto import reward_pb2 as pb
from medreward.types import DIMENSIONS

PROBLEM = "application/problem+json"
JSON = {"content-type": "application/json"}

Six = tuple[float, ...]


class Doors(Protocol):
    """A server's REST and gRPC doors, in this process or in another."""

    @property
    def rest(self) -> httpx.AsyncClient: ...
    @property
    def stub(self) -> Any: ...


@dataclass(frozen=True)
class Numbers:
    """A scored response, to the last bit."""

    item: int
    response: int
    logits: Six
    scores: Six
    uncertainty: Six | None
    reward: float
    flags: tuple[str, ...]


@dataclass(frozen=True)
class NoNumbers:
    item: int
    response: int
    code: str
    field: str


@dataclass(frozen=True)
class Refusal:
    status: int | grpc.StatusCode
    code: str
    field: str


Answer = list[Numbers | NoNumbers] | Refusal


async def post(server: Doors, body: Body, metadata: Mapping[str, str] | None = None) -> httpx.Response:
    written = json.dumps(body)  # ASCII, so that a lone surrogate can be written too
    headers = {**JSON, **(metadata or {})}
    return await server.rest.post("/score", content=written, headers=headers)


async def over_rest(server: Doors, body: Body, metadata: Mapping[str, str] | None = None) -> Answer:
    reply = await post(server, body, metadata)
    written = reply.json()
    if reply.status_code != 200:
        assert reply.headers["content-type"] == PROBLEM
        return Refusal(reply.status_code, written["code"], written["field"] or "")
    return [_from_json(result) for result in written["results"]]


async def over_grpc(server: Doors, body: Body, metadata: Mapping[str, str] | None = None) -> Answer:
    try:
        reply = await server.stub.Score(to_message(body), metadata=tuple((metadata or {}).items()))
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return [_from_message(result) for result in reply.results]


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    trailing = dict(error.trailing_metadata() or ())
    return Refusal(error.code(), str(trailing.get("x-error-code")), str(trailing.get("x-error-field", "")))


async def refused(call: Any) -> Refusal:
    """What a gRPC call that must fail fails with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError("the call was answered")


def _from_json(result: dict[str, Any]) -> Numbers | NoNumbers:
    place = result["item"], result["response"]
    if result["status"] == "error":
        assert [result[name] for name in ("scores", "logits", "uncertainty", "reward")] == [None] * 4
        return NoNumbers(*place, result["error"]["code"], result["error"]["field"])
    spread = result["uncertainty"]
    return Numbers(
        *place,
        tuple(result["logits"][d] for d in DIMENSIONS),
        tuple(result["scores"][d] for d in DIMENSIONS),
        tuple(spread[d] for d in DIMENSIONS) if spread else None,
        result["reward"],
        tuple(result["flags"]),
    )


def _from_message(result: pb.Result) -> Numbers | NoNumbers:
    place = result.item, result.response
    if result.HasField("error"):
        assert not any(result.HasField(name) for name in ("scores", "logits", "uncertainty", "reward"))
        return NoNumbers(*place, result.error.code, result.error.field)
    return Numbers(
        *place,
        _six(result.logits),
        _six(result.scores),
        _six(result.uncertainty) if result.HasField("uncertainty") else None,
        result.reward,
        tuple(result.flags),
    )


def _six(message: pb.Dimensions) -> Six:
    return tuple(getattr(message, d) for d in DIMENSIONS)


def body_with(text: str) -> bytes:
    return f'{{"question": "q", "response": "r"{text}}}'.encode()


async def send(server: Doors, body: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await server.rest.post("/score", content=body, headers=JSON | named)


def check_problem(reply: httpx.Response, status: int, code: str, field: str | None = None) -> None:
    assert reply.headers["content-type"] == PROBLEM
    problem = Problem.model_validate_json(reply.content)
    assert (reply.status_code, problem.code, problem.field) == (status, code, field)
    assert problem.status == status
    assert problem.title
    assert problem.detail
    assert problem.request_id == reply.headers["x-request-id"]
    assert list(reply.json()) == ["type", "title", "status", "code", "detail", "field", "request_id"]
