"""The routes of the admin port: metrics, state, drain. The port is separate, so that nobody exposes it by accident."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field

from medreward import __version__
from medreward.api.access.keyring import Keyring
from medreward.api.access.tls import Tls
from medreward.api.openapi import PROBLEMS, describe, paths
from medreward.api.rest.decisions import AUDIT_OFF
from medreward.api.rest.middleware import NO_TELEMETRY, admin_rules, engine_of, entry_of, surround
from medreward.api.rest.reply_shapes import ModelRefShape
from medreward.api.rest.requests import checked, decode_json, read_body
from medreward.api.rest.screen import PolicyRefShape, screening_of
from medreward.api.shape import Shape
from medreward.api.state_shapes import StateReply
from medreward.engine.engine import Engine
from medreward.engine.models import Change, Plan
from medreward.errors import Code, RequestError
from medreward.screening.screening import Screening
from medreward.types import SleepLevel

if TYPE_CHECKING:
    from medreward.tracing.spans import Tracing

TAGS = [{"name": "operators", "description": "for those who run the server: Prometheus, deployment scripts, people"}]

S = TypeVar("S", bound=Shape)
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

router = APIRouter(tags=["operators"], responses=PROBLEMS)


def create_admin_app(
    engine: Engine, keys: Keyring, screening: Screening, tls: Tls | None = None, tracing: "Tracing | None" = None
) -> FastAPI:
    app = FastAPIOffline(
        title="MedReward admin",
        version=__version__,
        redoc_url=None,
        redirect_slashes=False,
        openapi_tags=TAGS,
        telemetry=NO_TELEMETRY,
    )
    app.state.engine = engine
    app.state.screening = screening
    app.include_router(router)
    surround(app, [router], engine, keys, admin_rules(engine.settings), tracing)
    engine.metrics.expect(paths(router), "200")
    if tls:
        engine.metrics.certificate_expiry.set_function(tls.seconds_left)
    describe(app)
    return app


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus' text format; docs/operating.md says what each metric is."""
    return Response(generate_latest(engine_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/admin/state", responses={200: {"model": StateReply}})
async def state(request: Request) -> dict[str, object]:
    """What the server is doing now, and what it keeps account of: the audit log, drift and the shadow."""
    return _state(request)


class ModelRequest(Shape):
    """A model that is to serve."""

    model: str = Field(max_length=1000, description="a bundled name, a directory, or org/name@revision")
    require_evidence: str | None = Field(None, description="take it only if this gate policy promoted it")
    plan: Plan = Field(
        Plan.BESIDE,
        strict=False,
        description="beside: load it while the old one serves. drain: let the old one go first, for want of memory; "
        "until the new one is loaded no request is taken",
    )
    share: float = Field(
        1,
        gt=0,
        le=1,
        description="below 1: the new model answers this part of the requests that pin none, image by image, until it "
        "is asked for with 1 or rolled back",
    )


class ModelsReply(Shape):
    """Which models there are."""

    state: str = Field(description="serving, canary, asleep, or what is being done now")
    model: ModelRefShape | None = Field(description="null while none is loaded")
    previous: ModelRefShape | None = Field(description="the one before, while it is still loaded")
    candidate: ModelRefShape | None = Field(description="the one that has a share of the requests")
    share: float | None
    asleep: int | None = Field(description="level of the sleep; null while awake")
    last_problem: str | None = Field(description="why the last model was refused")


class SleepRequest(Shape):
    level: SleepLevel = Field(
        SleepLevel.WEIGHTS_KEPT,
        strict=False,
        description="1: the weights stay in this machine's memory. 2: the workers end, and nothing of the model stays",
    )


@router.get("/admin/model", responses={200: {"model": ModelsReply}})
async def models(request: Request) -> dict[str, object]:
    """The model that serves, the one before it, and one that is on its way."""
    return engine_of(request).models.state()


@router.post("/admin/model", responses={200: {"model": ModelsReply}})
async def swap(request: Request) -> dict[str, object]:
    """Loads another model, checks its digests and golden scores, and lets it take over between two requests. The answer
    comes when it serves. 409 where it is refused: then the old one serves, and the detail says why."""
    asked = await _body(request, ModelRequest)
    change = Change(asked.model, asked.require_evidence, asked.plan, asked.share)
    return await _models(request, engine_of(request).models.swap(change))


@router.post("/admin/model/rollback", responses={200: {"model": ModelsReply}})
async def roll_back(request: Request) -> dict[str, object]:
    """Takes a candidate away; without one, lets the model before serve again."""
    return await _models(request, engine_of(request).models.roll_back())


@router.post("/admin/sleep", responses={200: {"model": ModelsReply}})
async def sleep(request: Request) -> dict[str, object]:
    """Answers the requests under way, then frees the device for something else, such as a trainer. Until it wakes,
    requests are refused as `asleep`."""
    asked = await _body(request, SleepRequest)
    return await _models(request, engine_of(request).models.sleep(asked.level))


@router.post("/admin/wake", responses={200: {"model": ModelsReply}})
async def wake(request: Request) -> dict[str, object]:
    """Takes the device again. The answer comes when the golden scores are as they were and requests are taken."""
    return await _models(request, engine_of(request).models.wake())


async def _models(request: Request, change: Coroutine[Any, Any, None]) -> dict[str, object]:
    """Returns the state after a change, which goes on even where the client does not wait for it."""
    await asyncio.shield(asyncio.create_task(change))
    return engine_of(request).models.state()


async def _body(request: Request, shape: type[S]) -> S:
    """Returns the JSON body as this shape; without a body all fields have their defaults."""
    engine = engine_of(request)
    with engine.bodies.reserve() as room:
        body = await read_body(request, engine.settings, room)
    return checked(shape, decode_json(body) if body else {})


class CurrentRequest(Shape):
    version: str = Field(max_length=64)


@router.post("/admin/policies/{name}/current", responses={200: {"model": PolicyRefShape}})
async def move_policy(request: Request, name: str) -> dict[str, str]:
    """Makes a version of a screening policy the current one, forth or back. 404 where it is not there; 409 where it
    was made for another model or has changed since it was published, and the one before stays."""
    body = await _body(request, CurrentRequest)
    caller = entry_of(request.scope).caller
    return screening_of(request).policies.move(name, body.version, caller.id).as_json()


class EraseRequest(Shape):
    """What to erase: payloads by their SHA-256, or decisions."""

    sha256: list[Sha256] = Field([], description="of image files, questions or responses")
    decisions: list[str] = Field([], description="ids of decisions")


class EraseReply(Shape):
    erased: int = Field(description="about how many responses something was erased")


@router.post("/admin/audit/erase", responses={200: {"model": EraseReply}})
async def erase(request: Request) -> dict[str, int]:
    """Erases what the audit log holds about payloads or decisions; its chain stays whole. 409 where the server keeps
    no audit log."""
    engine, audit = engine_of(request), screening_of(request).audit
    with engine.bodies.reserve() as room:
        body = checked(EraseRequest, decode_json(await read_body(request, engine.settings, room)))
    if audit is None:
        raise RequestError(Code.AUDIT_OFF, AUDIT_OFF)
    by = entry_of(request.scope).caller.id
    return {"erased": await audit.erase(body.sha256, body.decisions, f"key {by}" if by else "admin port")}


@router.post("/admin/drain", responses={200: {"model": StateReply}})
async def drain(request: Request) -> dict[str, object]:
    """Refuses new requests and finishes accepted ones; the process stays. `/admin/undrain` takes it back."""
    engine_of(request).drain()
    return _state(request)


@router.post("/admin/undrain", responses={200: {"model": StateReply}})
async def undrain(request: Request) -> dict[str, object]:
    """Takes requests again after `/admin/drain`; 503 when the server is stopping, which nothing takes back."""
    engine_of(request).undrain()
    return _state(request)


@router.post("/admin/drift/reset", responses={200: {"model": StateReply}})
async def reset_drift(request: Request) -> dict[str, object]:
    """Forgets alarms and all that was watched, and begins anew: with the reference, or with a first window of
    decisions. 404 where drift is not watched."""
    drift = screening_of(request).drift
    if not drift:
        raise RequestError(Code.NOT_FOUND, "drift is not watched: start the server without --drift off")
    drift.reset()
    return _state(request)


def _state(request: Request) -> dict[str, object]:
    return engine_of(request).state() | screening_of(request).state()
