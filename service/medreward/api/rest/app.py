"""The routes of the REST door. Each translates the request, calls the engine and translates its answer back."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi_offline import FastAPIOffline

from medreward import __version__
from medreward.api import compat
from medreward.api.access.keyring import Caller, Keyring
from medreward.api.fields import read_deadline, read_lane
from medreward.api.openapi import PROBLEMS, describe, paths, scoring
from medreward.api.page import routes as page
from medreward.api.rest import decisions, rank, screen
from medreward.api.rest.leaving import cancelled_if_left
from medreward.api.rest.middleware import NO_TELEMETRY, engine_of, entry_of, rest_rules, surround
from medreward.api.rest.replies import json_reply, score_reply
from medreward.api.rest.reply_shapes import ModelReply, ScoreReply, StoredReply
from medreward.api.rest.request_shapes import GroupedRequest, RankRequest, TripleRequest
from medreward.api.rest.requests import read_body, read_score_body
from medreward.engine.engine import Engine
from medreward.engine.limits import limits_of
from medreward.errors import Code, ItemError, RequestError
from medreward.screening.screening import Screening
from medreward.types import Failed, Lane

if TYPE_CHECKING:
    from medreward.tracing.spans import Tracing

TAGS = [
    {
        "name": "trainers",
        "description": "scores as rewards: many triples, grouped by image and question; and in trainers' own shapes",
    },
    {"name": "screening", "description": "one answer that is about to be shown: X-Lane: interactive"},
    {"name": "images", "description": "images that are sent once and named by their hash in later requests"},
    {"name": "operators", "description": "what is served, within which limits, and whether it works"},
]

router = APIRouter()


def create_app(engine: Engine, keys: Keyring, screening: Screening, tracing: "Tracing | None" = None) -> FastAPI:
    app = FastAPIOffline(
        title="MedReward",
        version=__version__,
        redoc_url=None,
        redirect_slashes=False,
        openapi_tags=TAGS,
        telemetry=NO_TELEMETRY,
    )
    app.state.engine = engine
    app.state.screening = screening
    app.state.jobs = compat.Jobs()
    routers = (router, rank.router, page.router, screen.router, decisions.router, *compat.ROUTERS)
    for each in routers:
        app.include_router(each)
    surround(app, routers, engine, keys, rest_rules(engine.settings), tracing)
    in_lanes: dict[str, Iterable[Lane]] = dict.fromkeys(("/score", "/v1/score", "/v1/rank"), Lane)
    in_lanes |= dict.fromkeys(("/v1/screen", *compat.DECIDING), (Lane.INTERACTIVE,))
    for path in paths(*routers):
        engine.metrics.expect((path,), "200", in_lanes.get(path, (Lane.BULK,)))
    engine.metrics.expect_fills(compat.FILLING)
    own = (TripleRequest, GroupedRequest, RankRequest)
    describe(app, *own, *screen.SHAPES, decisions.OverrideRequest, *compat.SHAPES)
    return app


def caller_of(request: Request) -> Caller:
    return entry_of(request.scope).caller


@router.post(
    "/v1/score",
    tags=["trainers", "screening"],
    responses={200: {"model": ScoreReply}, **PROBLEMS},
    openapi_extra=scoring(TripleRequest, GroupedRequest),
)
@router.post("/score", include_in_schema=False)
async def score(request: Request) -> Response:
    """Six scores for each response, per item. An item that cannot be scored has an error, and its neighbours scores."""
    engine, entry, headers = engine_of(request), entry_of(request.scope), request.headers
    entry.lane = read_lane(headers.get("x-lane"))
    entry.caller.check_lane(entry.lane)
    deadline_s = read_deadline(headers.get("x-deadline-ms"))
    engine.refuse_early(entry.lane)
    with engine.bodies.reserve() as room:
        body = await read_score_body(request, engine.settings, room)
        asked = body.to_request(entry, headers, deadline_s)
        entry.caller.charge(await engine.triples_of(asked))
        async with cancelled_if_left(request):
            response = await engine.score(asked)
    entry.add(response)
    first = response.results[0]
    if body.is_triple and isinstance(first, Failed):
        error = first.error
        raise ItemError(error.code, error.detail, body.pointers[0].to(first), error.retry_after)
    return score_reply(response, body.pointers)


IMAGE_BODY = {
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}
}


@router.put(
    "/v1/images",
    tags=["images"],
    responses={200: {"model": StoredReply}, 201: {"model": StoredReply}, **PROBLEMS},
    openapi_extra=IMAGE_BODY,
)
async def put_image(request: Request) -> Response:
    """Stores an image's bytes under their sha256, so that requests may name them by it."""
    engine = engine_of(request)
    with engine.bodies.reserve() as room:
        data = await read_body(request, engine.settings, room)
        new, file = await engine.put_image(data, caller_of(request).tenant)
    stored = {"sha256": file.digest, "width": file.header.width, "height": file.header.height}
    return json_reply(stored, 201 if new else 200)


@router.delete("/v1/images/{sha256}", tags=["images"], status_code=204, responses=PROBLEMS)
async def delete_image(request: Request, sha256: str) -> Response:
    """Forgets an image that this caller's tenant stored."""
    if not engine_of(request).delete_image(sha256, caller_of(request).tenant):
        raise RequestError(Code.NOT_FOUND, "no image is stored under this hash")
    return Response(status_code=204)


@router.get("/v1/model", tags=["operators"], responses={200: {"model": ModelReply}, **PROBLEMS})
async def model(request: Request) -> Response:
    """The model that answers, what its uncertainty is, and its card."""
    served = engine_of(request).serving
    about = {
        "dimensions": served.model.manifest.dimensions,
        "default_weights": served.model.default_weights,
        "viewpoints": {name: each.model_dump() for name, each in served.model.manifest.viewpoints.items()},
        "experts": {name: each.departments for name, each in served.model.manifest.experts.items()},
        "uncertainty": served.uncertainty,
        "card": served.model.card,
    }
    runtime = served.ref.runtime
    return json_reply({**served.ref.as_json(), **about, "backend": runtime.backend, "device": runtime.device})


@router.get("/v1/limits", tags=["operators"], responses={200: {"model": dict[str, float]}, **PROBLEMS})
async def limits(request: Request) -> Response:
    """Every limit in force, by name, the key's quotas among them."""
    engine = engine_of(request)
    return json_reply(limits_of(engine.settings, engine.serving.model) | caller_of(request).limits())


@router.get("/livez", tags=["operators"])
async def livez() -> dict[str, str]:
    """Whether the process runs; a probe that fails is a reason to restart it."""
    return {"status": "live"}


@router.get("/readyz", tags=["operators"], responses=PROBLEMS)
async def readyz(request: Request) -> dict[str, str]:
    """Whether requests are taken; 503 says why not: loading, draining, or a worker that is being replaced."""
    reason = engine_of(request).not_ready()
    if reason:
        raise RequestError(Code.NOT_READY, reason, retry_after=1)
    return {"status": "ready"}
