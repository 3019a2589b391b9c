"""What the routes of trainers have in common: a request of a foreign shape, one call of the engine, an answer for each
sample, and what becomes of one that was not scored."""

import asyncio
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from pydantic import ConfigDict

from medreward.api.compat.labels import read_label
from medreward.api.compat.markup import Parts
from medreward.api.fields import option, read_deadline, read_lane
from medreward.api.observing import Entry
from medreward.api.openapi import REFERENCE
from medreward.api.rest.leaving import cancelled_if_left
from medreward.api.rest.middleware import engine_of, entry_of
from medreward.api.rest.requests import checked, decode_json, read_body
from medreward.api.rest.status import Unscored
from medreward.api.shape import Shape
from medreward.api.structure import check_json
from medreward.engine.engine import Engine
from medreward.engine.model import Model
from medreward.errors import RETRYABLE, Code, ItemError, MedRewardError, RequestError
from medreward.settings import Settings
from medreward.types import (
    DIMENSIONS,
    Failed,
    Item,
    Options,
    Result,
    Scored,
    ScoreRequest,
    ScoreResponse,
    Six,
    Thinking,
    TooLong,
)

log = logging.getLogger("medreward")

#: How long a route waits for a server that is busy, loading or replacing its worker, where its client never asks again.
PATIENCE_SECONDS: Final = 600.0
RETRY_SECONDS: Final = 1.0
#: Causes for which the engine gave up on a request that it had taken; the others refuse it before any work is done.
GIVEN_UP: Final = frozenset({Code.WORKER_LOST, Code.OUT_OF_MEMORY, Code.DEADLINE})

PARAMETERS: Final[Mapping[str, str]] = {
    "on_error": "what an answer that could not be scored becomes: `raise` (the default: the request fails with 503 if "
    "it may pass later, else with 422), `null`, or a number",
    "weights": "weight of each dimension in the reward, as `accuracy:2,overall:1`; one not named weighs 0, and without "
    "this the model's own count",
    "viewpoint": "name of a viewpoint of the model, whose weights make the reward; not beside `weights`",
    "too_long": "`error` (the default) or `cut_middle`",
    "thinking": "`keep` (the default) or `strip`",
}

S = TypeVar("S", bound="Foreign")


def described(shape: type["Foreign"]) -> dict[str, Any]:
    """Returns what openapi.json says of a route beside its replies: its parameters and the shape of its body."""
    parameters = [
        {"name": name, "in": "query", "description": about, "schema": {"type": "string"}}
        for name, about in PARAMETERS.items()
    ]
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model=shape.__name__)}}}
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


class Foreign(Shape):
    """A shape that a trainer sends. It may have any fields beside those that are read."""

    model_config = ConfigDict(extra="ignore")


@dataclass(frozen=True, slots=True)
class Sample:
    """One response to score, as an item of its own, or why it cannot be one; and where it stands in the body."""

    pointer: str
    item: Item | ItemError


def text_sample(pointer: str, parts: Parts, label: object = None) -> Sample:
    """Returns the sample of a text that was taken apart. A question in its label wins over the one in the text."""
    try:
        about = read_label(label)
        question = parts.question if about.question is None else about.question
        return Sample(
            pointer, Item(question, (parts.response,), about.sources, parts.history, parts.is_raw, about.department)
        )
    except ItemError as error:
        return Sample(pointer, error)


def without_unread_system(item: Item, model: Model) -> Item:
    """Returns the item as these routes ask it: without turns of the system where the model does not read them."""
    if model.reads_system or not item.history:
        return item
    return replace(item, history=tuple(turn for turn in item.history if turn.role != "system"))


@dataclass(frozen=True, slots=True)
class Answer:
    """The numbers of one sample; each is the one that `on_error` names where the sample was not scored."""

    reward: float | None
    logits: Six
    scores: Six
    error: ItemError | None = None  # why it was not scored


@dataclass(frozen=True, slots=True)
class Call:
    """What the URL and the headers of a trainer's request say of all its samples."""

    route: str
    entry: Entry
    request: ScoreRequest  # without items
    raises: bool
    fill: float | None


def read_call(route: str, entry: Entry, parameters: Mapping[str, str], headers: Mapping[str, str]) -> Call:
    """Reads the parameters and headers, in gRPC the metadata. Refuses one with a value that it cannot have, and a lane
    that the key may not use."""
    entry.lane = read_lane(headers.get("x-lane"))
    entry.caller.check_lane(entry.lane)
    on_error = parameters.get("on_error", "raise")
    thinking = option(Thinking, parameters.get("thinking") or Thinking.KEEP, "thinking")
    if thinking is Thinking.BOTH:
        raise RequestError(Code.INVALID_FIELD, "a trainer gets one reward: this must be keep or strip", "thinking")
    request = ScoreRequest(
        id=entry.request_id,
        items=(),
        weights=_weights(parameters.get("weights")),
        options=Options(
            option(TooLong, parameters.get("too_long") or TooLong.ERROR, "too_long"),
            thinking,
        ),
        lane=entry.lane,
        deadline_s=read_deadline(headers.get("x-deadline-ms")),
        fingerprint=headers.get("x-model-fingerprint"),
        tenant=entry.caller.tenant,
        viewpoint=parameters.get("viewpoint") or None,
        trace=entry.recorded,
    )
    fill = None if on_error in ("raise", "null") else _number(on_error, "on_error", "raise, null or a finite number")
    return Call(route, entry, request, on_error == "raise", fill)


def _weights(written: str | None) -> dict[str, float] | None:
    if not written:
        return None
    pairs = [pair.partition(":") for pair in written.split(",")]
    return {name.strip(): _number(weight, "weights", "written as accuracy:2,overall:1") for name, _, weight in pairs}


def _number(written: str, field: str, form: str) -> float:
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(Code.INVALID_FIELD, f"{field} must be {form}", field)
    return number


def call_of(request: Request) -> Call:
    return read_call(request.scope["route"].path, entry_of(request.scope), request.query_params, request.headers)


async def ask(
    request: Request, shape: type[S], samples_of: Callable[[S], list[Sample]], patience: float = 0
) -> tuple[S, list[Answer]]:
    """Reads the body, has its samples scored, and returns both. A server that cannot take them now is waited for as
    many seconds as `patience` says."""
    engine, call = engine_of(request), call_of(request)
    if not patience:
        engine.refuse_early(call.entry.lane)
    with engine.bodies.reserve() as room:
        body = read_foreign(shape, await read_body(request, engine.settings, room), engine.settings)
        samples = samples_of(body)
        call.entry.caller.charge(len(samples))
        async with cancelled_if_left(request):
            answers = await score(engine, call, samples, patience)
    return body, answers


def read_foreign(shape: type[S], body: bytes, settings: Settings) -> S:
    """Returns the JSON of a body as this shape, whatever Content-Type it has; refuses what does not fit it."""
    check_json(body, settings)
    fields = decode_json(body)
    if not isinstance(fields, dict):
        raise RequestError(Code.INVALID_FIELD, "the body must be a JSON object")
    return checked(shape, fields)


async def score(engine: Engine, call: Call, samples: Sequence[Sample], patience: float = 0) -> list[Answer]:
    """Returns an answer for each sample. Fails where one was not scored and nothing was said of what it becomes."""
    items, places = _grouped(samples)
    results: dict[tuple[int, int], Result] = {}
    if items:
        request = replace(call.request, items=items)
        response = await _response(engine, request, patience)
        call.entry.add(response)
        results = {(result.item, result.response): result for result in response.results}
    answers = [
        _answer(sample.item if isinstance(sample.item, ItemError) else results[place], call.fill)
        for sample, place in zip(samples, places, strict=True)
    ]
    failed = [(sample, answer.error) for sample, answer in zip(samples, answers, strict=True) if answer.error]
    if failed and call.raises:
        sample, error = failed[0]
        retry_after = (error.retry_after or RETRY_SECONDS) if error.code in RETRYABLE else None
        raise Unscored(error.code, error.detail, sample.pointer, retry_after)
    if failed:
        engine.metrics.filled.labels(call.route).inc(len(failed))
        reasons = dict(Counter(error.code for _, error in failed))
        log.warning(
            "unscored answers filled",
            extra={
                "request_id": call.entry.request_id,
                "route": call.route,
                "filled": len(failed),
                "with": call.fill,
                "reasons": reasons,
            },
        )
    return answers


def _grouped(samples: Sequence[Sample]) -> tuple[tuple[Item, ...], list[tuple[int, int]]]:
    """Returns the samples as items, those that differ in their response alone as one, and the place of each sample
    among the items and their responses."""
    groups: dict[Item, tuple[int, list[str]]] = {}
    places = []
    for sample in samples:
        if isinstance(sample.item, ItemError):
            places.append((-1, -1))
            continue
        i, responses = groups.setdefault(replace(sample.item, responses=()), (len(groups), []))
        responses += sample.item.responses
        places.append((i, len(responses) - 1))
    return tuple(replace(item, responses=tuple(responses)) for item, (_, responses) in groups.items()), places


async def _response(engine: Engine, request: ScoreRequest, patience: float) -> ScoreResponse:
    """Returns the engine's response. Where it gave up on the whole request, each response has that as its error. With
    patience the request is repeated as long as a result may be there the next time; what has a score is cached."""
    until = time.monotonic() + patience
    while True:
        try:
            model = engine.serving.model
            items = tuple(without_unread_system(item, model) for item in request.items)
            response = await engine.score(replace(request, items=items))
            errors = [result.error for result in response.results if isinstance(result, Failed)]
        except RequestError as refusal:
            if not _may_pass(engine, [refusal], until):
                if refusal.code not in GIVEN_UP:
                    raise
                error = ItemError(refusal.code, refusal.detail, retry_after=refusal.retry_after)
                return ScoreResponse.failed(request, engine.serving.ref, error)
        else:
            if not _may_pass(engine, errors, until):
                return response
        await asyncio.sleep(RETRY_SECONDS)


def _may_pass(engine: Engine, errors: Sequence[MedRewardError], until: float) -> bool:
    in_time = time.monotonic() < until and not engine.is_stopping
    return in_time and any(error.code in RETRYABLE for error in errors)


def _answer(outcome: Result | ItemError, fill: float | None) -> Answer:
    if isinstance(outcome, Scored) and outcome.reward is not None:
        return Answer(outcome.reward, outcome.logits, outcome.scores)
    if isinstance(outcome, Scored):
        error = ItemError(Code.UNSUPPORTED_FIELD, "the model lacks a dimension that has a weight: give others")
    else:
        error = outcome if isinstance(outcome, ItemError) else outcome.error
    return Answer(fill, (fill,) * len(DIMENSIONS), (fill,) * len(DIMENSIONS), error)


def by_dimension(numbers: Six) -> dict[str, float | None]:
    return dict(zip(DIMENSIONS, numbers, strict=True))


def reply(request: Request, body: object) -> Response:
    return Response(encoded(body), headers=model_headers(request), media_type="application/json")


def encoded(body: object) -> bytes:
    """Returns JSON in ASCII, for trainers' own words come back in it, with lone surrogates and integers of any size.
    Refuses a number of theirs that is too large to be one in JSON, such as 1e999."""
    try:
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise RequestError(Code.INVALID_FIELD, "the body has a number that is too large") from None


def model_headers(request: Request) -> dict[str, str]:
    """Returns the headers that name the model, for which trainers' shapes have no room."""
    ref = engine_of(request).models.named(entry_of(request.scope).fingerprint).ref
    about = {"X-Model-Fingerprint": ref.fingerprint, "X-Model-Runtime": str(ref.runtime)}
    return {**about, "X-Model-Evidence": ref.evidence}
