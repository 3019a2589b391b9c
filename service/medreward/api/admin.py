"""The admin door: metrics, state, drain. Its own port, so that it is never exposed by accident."""

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from medreward.api.auth import Keyring
from medreward.api.gate import Gate, admin_rules
from medreward.api.observe import Observe
from medreward.api.problems import answer_with_problems
from medreward.engine.engine import Engine

router = APIRouter()


def create_admin_app(engine: Engine, keys: Keyring) -> FastAPI:
    app = FastAPI(title="MedReward admin", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.engine = engine
    app.include_router(router)
    app.add_middleware(Gate, keys=keys, rules=admin_rules(engine.settings))
    app.add_middleware(Observe, metrics=engine.metrics)
    answer_with_problems(app)
    return app


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    engine: Engine = request.app.state.engine
    return Response(generate_latest(engine.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/admin/state")
async def state(request: Request) -> dict[str, object]:
    engine: Engine = request.app.state.engine
    return engine.state()


@router.post("/admin/drain")
async def drain(request: Request) -> dict[str, object]:
    """Refuse new requests, finish accepted ones; the process stays."""
    engine: Engine = request.app.state.engine
    engine.drain()
    return engine.state()
