"""The gRPC server: what it serves, within which limits of its own, and its health."""

import asyncio
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from medreward.api.access.keyring import Keyring
from medreward.api.access.tls import Tls
from medreward.api.compat import oip_rpc
from medreward.api.rpc.middleware import AccessCheck, Observe
from medreward.api.rpc.service import GET_MODEL, PUT_IMAGE, RANK, SCORE, SCREEN, SERVICE, STREAM, RewardService
from medreward.engine.engine import Engine
from medreward.screening.screening import Screening
from medreward.types import Lane

if TYPE_CHECKING:
    from medreward.tracing.spans import Tracing

HEALTH_SECONDS: Final = 0.25
IDLE_SECONDS: Final = 300  # after which a connection without a call is closed; clients open another unseen
CALLS_A_CONNECTION: Final = 1024
FRAMING_BYTES: Final = 65_536  # what a message may have beyond the payload that the body limit is about


class Rpc:
    """The gRPC server. Its health service says what the engine says of its readiness, at most HEALTH_SECONDS late."""

    def __init__(
        self,
        engine: Engine,
        keys: Keyring,
        screening: Screening,
        tls: Tls | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._engine = engine
        self._tls = tls
        settings = engine.settings
        self._server = grpc.aio.server(
            interceptors=[AccessCheck(keys, engine.metrics, settings.request_ids, tracing)],
            options=[
                ("grpc.max_receive_message_length", settings.body_bytes + FRAMING_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # two servers never share a port unseen
                ("grpc.compression_enabled_algorithms_bitset", 1),  # none, as at the REST door
                ("grpc.max_metadata_size", settings.header_bytes),
                ("grpc.absolute_max_metadata_size", settings.header_bytes),
                ("grpc.max_concurrent_streams", CALLS_A_CONNECTION),
                ("grpc.server_handshake_timeout_ms", int(settings.header_seconds * 1000)),
                ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
            ],
            maximum_concurrent_rpcs=settings.grpc_calls,
        )
        engine.metrics.expect((SCORE, STREAM, RANK), "OK", Lane)
        engine.metrics.expect((SCREEN,), "OK", (Lane.INTERACTIVE,))
        engine.metrics.expect((PUT_IMAGE, GET_MODEL), "OK")
        self._health = health.aio.HealthServicer()
        engine.metrics.expect(oip_rpc.METHODS, "OK")
        engine.metrics.expect_fills([oip_rpc.INFER])
        observe = Observe(engine.metrics, settings, tracing)
        services = RewardService(engine, screening, observe), oip_rpc.InferenceService(engine, observe)
        self._server.add_generic_rpc_handlers(tuple(service.handlers() for service in services))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = SERVICE, oip_rpc.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME
        reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str, port: int) -> int:
        """Begins to serve and returns the port, which the system chooses where 0 is given."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if self._tls:
            bound = self._server.add_secure_port(address, self._tls.grpc_credentials())
        else:
            bound = self._server.add_insecure_port(address)
        await self._tell_health()
        await self._server.start()
        self._mirror = asyncio.create_task(self._mirror_health(), name="grpc-health")
        return bound

    async def stop(self, grace: float) -> None:
        self._mirror.cancel()
        await self._server.stop(grace)

    async def _mirror_health(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            await self._tell_health()

    async def _tell_health(self) -> None:
        kind = health_pb2.HealthCheckResponse
        status = kind.NOT_SERVING if self._engine.not_ready() else kind.SERVING
        for service in ("", SERVICE):
            await self._health.set(service, status)
