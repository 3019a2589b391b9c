"""The engine's answers to JSON of the contract. They are plain dicts: reply_shapes.py describes them, and a test
compares the two."""

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import Response

from medreward.api.fields import ItemPointers
from medreward.errors import ItemError
from medreward.types import (
    DIMENSIONS,
    Aside,
    Contribution,
    Failed,
    Result,
    Scored,
    ScoreResponse,
    Six,
    Step,
    Timings,
)


def score_reply(response: ScoreResponse, pointers: Sequence[ItemPointers]) -> Response:
    """Returns the reply to a request whose items stand at these pointers."""
    return timed_reply(score_body(response, pointers), response.timings)


def score_body(response: ScoreResponse, pointers: Sequence[ItemPointers]) -> dict[str, Any]:
    return {
        "id": response.id,
        "model": response.model.as_json(),
        "results": [_result(result, pointers) for result in response.results],
        "timings_ms": milliseconds(response.timings),
    }


def timed_reply(body: object, timings: Timings) -> Response:
    phases = milliseconds(timings)
    return json_reply(body, headers={"Server-Timing": ", ".join(f"{phase};dur={ms}" for phase, ms in phases.items())})


def json_reply(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def _result(result: Result, pointers: Sequence[ItemPointers]) -> dict[str, Any]:
    if isinstance(result, Failed):
        return _failed(result, pointers)
    numbers: dict[str, Any] = {
        "item": result.item,
        "response": result.response,
        "status": "ok",
        "scores": six_of(result.scores),
        "logits": six_of(result.logits),
        "uncertainty": six_of(result.uncertainty) if result.uncertainty else None,
        "reward": result.reward,
        "flags": result.flags,
        "cached": result.cached,
    }
    if result.expert:
        numbers["expert"] = result.expert
    if result.viewpoints is not None:
        numbers |= {"viewpoints": result.viewpoints, "viewpoint_spread": result.viewpoint_spread}
    if result.explain is not None:
        numbers["explain"] = [{"start": each.start} | _part(each, result, pointers) for each in result.explain]
    if result.steps is not None:
        numbers["steps"] = [_part(each, result, pointers) for each in result.steps]
    if result.without_thinking is not None:
        numbers["without_thinking"] = _aside(result.without_thinking, result, pointers)
    return numbers


def _part(each: Contribution | Step, result: Scored, pointers: Sequence[ItemPointers]) -> dict[str, Any]:
    logits = six_of(each.logits) if each.logits else None
    return {"end": each.end, "logits": logits, "reward": each.reward} | _why(each.error, result, pointers)


def _aside(aside: Aside, result: Scored, pointers: Sequence[ItemPointers]) -> dict[str, Any]:
    sixes = {"scores": aside.scores, "logits": aside.logits, "uncertainty": aside.uncertainty}
    numbers = {name: six_of(values) if values else None for name, values in sixes.items()}
    return numbers | {"reward": aside.reward, "flags": aside.flags} | _why(aside.error, result, pointers)


def _why(error: ItemError | None, result: Scored, pointers: Sequence[ItemPointers]) -> dict[str, Any]:
    return {} if error is None else {"error": _error(Failed(result.item, result.response, error), pointers)}


def _failed(result: Failed, pointers: Sequence[ItemPointers]) -> dict[str, Any]:
    return {
        "item": result.item,
        "response": result.response,
        "status": "error",
        "error": _error(result, pointers),
        "scores": None,
        "logits": None,
        "uncertainty": None,
        "reward": None,
        "flags": result.flags,
    }


def _error(failed: Failed, pointers: Sequence[ItemPointers]) -> dict[str, str]:
    error = failed.error
    return {"code": error.code, "message": error.detail, "field": pointers[failed.item].to(failed)}


def six_of(values: Six) -> dict[str, float | None]:
    """Returns the numbers by their dimensions' names."""
    return dict(zip(DIMENSIONS, values, strict=True))


def milliseconds(timings: Timings) -> dict[str, float]:
    return {
        "decode": round(timings.decode * 1000, 3),
        "queue": round(timings.queue * 1000, 3),
        "inference": round(timings.inference * 1000, 3),
        "total": round(timings.total * 1000, 3),
    }
