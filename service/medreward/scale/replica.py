"""One replica of the service under Ray Serve: an engine with the REST and gRPC doors, and an admin port of its own."""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from medreward import logs
from medreward.api.access.hosts import is_loopback
from medreward.api.access.keyring import Keyring
from medreward.api.admin import create_admin_app
from medreward.api.observing import Entry
from medreward.api.rest.app import create_app
from medreward.api.rest.status import problem
from medreward.api.server import Door, bindable, listen, port_of
from medreward.engine.engine import Engine
from medreward.engine.models import Change
from medreward.errors import ConfigurationError
from medreward.metrics import Metrics
from medreward.scale.fleet import Member
from medreward.scale.policy import COST
from medreward.scale.rpc import STRANGER, RayRpc, refuses_strangers
from medreward.screening.screening import Screening
from medreward.settings import Settings

log = logging.getLogger("medreward")

NO_ROUTES: Final = Starlette()  # answers Ray's start and stop of the application, before there is a model


class Release(BaseModel):
    """What a deployment serves, as `user_config`: another one is taken over in place, without a replica's restart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    fingerprint: str | None = None  # the one that the model must have
    require_evidence: str | None = None

    @property
    def name(self) -> str:
        """Returns what two deployments of the same release share."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


async def as_left_if_cancelled(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Runs the application. Where Ray cancels it, for its client has left, the application is told that the client has
    left and ends by itself, so that it is logged and counted as that and not as a fault."""
    left = asyncio.Event()

    async def receive_until_left() -> Message:
        receiving, leaving = asyncio.ensure_future(receive()), asyncio.ensure_future(left.wait())
        try:
            await asyncio.wait({receiving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return {"type": "http.disconnect"} if left.is_set() else await receiving
        finally:
            receiving.cancel()
            leaving.cancel()

    answering = asyncio.ensure_future(app(scope, receive_until_left, send))
    try:
        await asyncio.shield(answering)
    except asyncio.CancelledError:
        left.set()
        await asyncio.wait({answering})
        raise


class Replica:
    """Ray Serve makes one of these in each replica, then calls `reconfigure` with the release."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._given = dict(settings)
        self._app: Any = None
        self._release: Release | None = None

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Loads the release's model; called again, lets another model take over between two requests. Raises
        ConfigurationError where it cannot be served, or RequestError where it is refused and the old one serves."""
        release = Release(**config)
        if self._release is None:
            await self._start(release)
        elif release.model != self._release.model:
            await self._engine.models.swap(Change(release.model, release.require_evidence))
        self._release = release
        await self._join()

    async def _start(self, release: Release) -> None:
        chosen = {"model": release.model, "require_evidence": release.require_evidence}
        self._settings = settings = Settings(**{**self._given, **chosen})
        logs.configure(settings.log_level)
        bindable(settings, "host")
        admin_host = bindable(settings, "admin_host")
        keys = Keyring(settings.keys_file)
        self._engine = engine = Engine(settings, Metrics(CollectorRegistry()))
        self._screening = Screening(engine)
        await engine.start()
        self._screening.start()
        admin = listen(admin_host, settings.admin_port)
        self._admin_at = f"{settings.admin_host}:{port_of(admin)}"
        self._rpc = RayRpc(engine, keys, self._screening)
        self._admin = Door(create_admin_app(engine, keys, self._screening), settings)
        self._serving = asyncio.create_task(self._admin.serve([admin]))
        self._watching = asyncio.create_task(keys.watch())
        self._app = create_app(engine, keys, self._screening)

    async def _join(self) -> None:
        """Raises ConfigurationError where this model is not the release's, or not the one of the other replicas."""
        release, has = self._release, self._engine.serving.ref.fingerprint
        assert release
        if release.fingerprint not in (None, has):
            raise ConfigurationError(f"the model {release.model} has the fingerprint {has}, not {release.fingerprint}")
        from medreward.scale.ray_fleet import join_fleet  # there is no Ray outside of its processes

        refused = await join_fleet(lambda me: Member(me, release.name, has, self._admin_at))
        if refused:
            raise ConfigurationError(refused)

    # what Ray calls

    def __serve_build_asgi_app__(self) -> Any:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await NO_ROUTES(scope, receive, send)
                return

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":  # Ray's proxy adds the request's id itself
                    message["headers"] = [pair for pair in message["headers"] if pair[0].lower() != b"x-request-id"]
                await send(message)

            client = scope.get("client")
            if refuses_strangers(self._settings) and not (client and is_loopback(client[0])):
                await problem(STRANGER, Entry(uuid.uuid4().hex, id_replaced=False, client=""))(scope, receive, answer)
                return
            await as_left_if_cancelled(self._app, scope, receive, answer)

        return app

    async def check_health(self) -> None:
        """Raises RuntimeError where the replica takes no requests; after some of these Ray replaces it. One that was
        put to sleep on purpose is well."""
        reason = self._engine.not_ready()
        if reason and reason != "asleep":
            raise RuntimeError(f"not ready: {reason}")
        await self._join()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Returns the cost that is waiting or running, by which the policy decides."""
        serving = self._engine.models.current
        return {COST: float(serving.scheduler.room.all_taken if serving else 0)}

    async def close(self) -> None:
        """Ends the workers; Ray has waited until the requests under way were answered."""
        if self._app is None:
            return
        engine, self._app = self._engine, None
        engine.stop()
        await engine.idle()
        self._admin.close()
        self._watching.cancel()
        await self._serving
        await self._screening.close()
        await engine.close()

    # the gRPC ingress

    async def Score(self, message: Any, grpc_context: Any) -> Any:  # noqa: N802  # Ray finds a method by its gRPC name
        return await self._rpc.answer("Score", message, grpc_context)

    async def Rank(self, message: Any, grpc_context: Any) -> Any:  # noqa: N802
        return await self._rpc.answer("Rank", message, grpc_context)

    async def Screen(self, message: Any, grpc_context: Any) -> Any:  # noqa: N802
        return await self._rpc.answer("Screen", message, grpc_context)

    async def PutImage(self, message: Any, grpc_context: Any) -> Any:  # noqa: N802
        return await self._rpc.answer("PutImage", message, grpc_context)

    async def GetModel(self, message: Any, grpc_context: Any) -> Any:  # noqa: N802
        return await self._rpc.answer("GetModel", message, grpc_context)

    async def ScoreStream(self, messages: Any, grpc_context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for reply in self._rpc.stream("ScoreStream", messages, grpc_context):
            yield reply
