"""The routes of the admin port: metrics, state, drain. The port is separate, so that nobody exposes it by accident."""

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field

from medreward import __version__
from medreward.api.access.keyring import Keyring
from medreward.api.access.tls import Tls
from medreward.api.openapi import PROBLEMS, describe, paths
from medreward.api.rest.middleware import admin_rules, engine_of, surround
from medreward.api.rest.requests import checked, decode_json, read_body
from medreward.api.rest.schemas import Shape, StateReply
from medreward.api.rest.screen import PolicyRefShape, screening_of
from medreward.engine.engine import Engine
from medreward.errors import Code, RequestError
from medreward.screening.screening import Screening

TAGS = [{"name": "operators", "description": "for those who run the server: Prometheus, deployment scripts, people"}]

router = APIRouter(tags=["operators"], responses=PROBLEMS)


def create_admin_app(engine: Engine, keys: Keyring, screening: Screening, tls: Tls | None = None) -> FastAPI:
    app = FastAPIOffline(
        title="MedReward admin", version=__version__, redoc_url=None, redirect_slashes=False, openapi_tags=TAGS
    )
    app.state.engine = engine
    app.state.screening = screening
    app.include_router(router)
    surround(app, [router], engine, keys, admin_rules(engine.settings))
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
    """What the server is doing now, and what it watches: drift and the shadow."""
    return _state(request)


class CurrentRequest(Shape):
    version: str = Field(max_length=64)


@router.post("/admin/policies/{name}/current", responses={200: {"model": PolicyRefShape}})
async def move_policy(request: Request, name: str) -> dict[str, str]:
    """Makes a version of a screening policy the current one, forth or back. 404 where it is not there; 409 where it
    was made for another model or has changed since it was published, and the one before stays."""
    engine = engine_of(request)
    with engine.bodies.reserve() as room:
        body = checked(CurrentRequest, decode_json(await read_body(request, engine.settings, room)))
    return screening_of(request).policies.move(name, body.version).as_json()


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
