"""Engine answers to the JSON of the contract. Plain dicts: schemas.py describes these shapes, a test compares."""

from typing import Any

import msgspec
from fastapi import Response

from medreward.api.fields import pointer_to
from medreward.api.rest.requests import Call
from medreward.types import DIMENSIONS, Failed, ModelRef, Result, ScoreResponse, Six, Timings


def score_reply(response: ScoreResponse, call: Call) -> Response:
    timings = milliseconds(response.timings)
    body = {
        "id": response.id,
        "model": model_ref(response.model),
        "results": [_result(result, call) for result in response.results],
        "timings_ms": timings,
    }
    server_timing = ", ".join(f"{phase};dur={ms}" for phase, ms in timings.items())
    return json_reply(body, headers={"Server-Timing": server_timing})


def json_reply(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def model_ref(model: ModelRef) -> dict[str, str]:
    return {
        "name": model.name,
        "version": model.version,
        "fingerprint": model.fingerprint,
        "runtime": model.runtime,
        "evidence": model.evidence,
    }


def _result(result: Result, call: Call) -> dict[str, Any]:
    if isinstance(result, Failed):
        return _failed(result, call)
    return {
        "item": result.item,
        "response": result.response,
        "status": "ok",
        "scores": _six(result.scores),
        "logits": _six(result.logits),
        "uncertainty": _six(result.uncertainty) if result.uncertainty else None,
        "reward": result.reward,
        "flags": result.flags,
        "cached": result.cached,
    }


def _failed(result: Failed, call: Call) -> dict[str, Any]:
    error = result.error
    return {
        "item": result.item,
        "response": result.response,
        "status": "error",
        "error": {"code": error.code, "message": error.detail, "field": call.pointer(pointer_to(result))},
        "scores": None,
        "logits": None,
        "uncertainty": None,
        "reward": None,
        "flags": result.flags,
    }


def _six(values: Six) -> dict[str, float | None]:
    return dict(zip(DIMENSIONS, values, strict=True))


def milliseconds(timings: Timings) -> dict[str, float]:
    return {
        "decode": round(timings.decode * 1000, 3),
        "queue": round(timings.queue * 1000, 3),
        "inference": round(timings.inference * 1000, 3),
        "total": round(timings.total * 1000, 3),
    }
