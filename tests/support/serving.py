"""A whole server in the tests' event loop: engine, REST, gRPC and admin on free ports of loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import httpx
from prometheus_client import CollectorRegistry

from medreward.api.access.keyring import Keyring
from medreward.api.access.tls import Tls
from medreward.api.admin import create_admin_app
from medreward.api.rest.app import create_app
from medreward.api.rpc.server import Rpc
from medreward.api.server import Door
from medreward.engine.engine import Engine
from medreward.metrics import Metrics
from medreward.proto import reward_pb2_grpc
from medreward.screening.screening import Screening
from medreward.settings import MIB, Settings

if TYPE_CHECKING:
    from medreward.tracing.spans import Tracing

LOOPBACK = "127.0.0.1"
#: Above gRPC's own default of 4 MiB, below what would make a test slow.
BODY_BYTES = 6 * MIB
IMAGE_BYTES = 1 * MIB


STUB: Any = reward_pb2_grpc.RewardServiceStub  # generated without types


@dataclass(frozen=True)
class Server:
    engine: Engine
    screening: Screening
    rest: httpx.AsyncClient
    admin: httpx.AsyncClient
    channel: grpc.aio.Channel
    stub: Any
    port: int
    grpc_port: int
    admin_port: int

    @property
    def grpc_target(self) -> str:
        return f"{LOOPBACK}:{self.grpc_port}"


def settings_for(**given: Any) -> Settings:
    small = {"model": "fake", "body_bytes": BODY_BYTES, "image_bytes": IMAGE_BYTES, "threads": 2, "isolation": "inline"}
    return Settings(**{**small, **given})


@asynccontextmanager
async def running(
    start: bool = True, tracing: "Tracing | None" = None, metrics: Metrics | None = None, **given: Any
) -> AsyncIterator[Server]:
    """With `start` false, a server that is still loading."""
    engine = Engine(settings_for(**given), metrics or Metrics(CollectorRegistry()))
    screening = Screening(engine)
    if start:
        await engine.start()
        screening.start()
    keys, tls = Keyring(engine.settings.keys_file), Tls.of(engine.settings)
    apps = create_app(engine, keys, screening, tracing), create_admin_app(engine, keys, screening, tls, tracing)
    doors = [Door(app, engine.settings, tls) for app in apps]
    sockets = [listening() for _ in doors]
    serving = [asyncio.create_task(door.serve([sock])) for door, sock in zip(doors, sockets, strict=True)]
    ports = [sock.getsockname()[1] for sock in sockets]
    watching = [asyncio.create_task(watched.watch()) for watched in (keys, tls) if watched]
    rpc = Rpc(engine, keys, screening, tls, tracing)
    ports.insert(1, await rpc.start(LOOPBACK, 0))
    target = f"{LOOPBACK}:{ports[1]}"
    no_limit = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with (
        _client(ports[0]) as rest,
        _client(ports[2]) as admin,
        grpc.aio.insecure_channel(target, no_limit) as channel,
    ):
        yield Server(engine, screening, rest, admin, channel, STUB(channel), *ports)
    for watch in watching:
        watch.cancel()
    for door in doors:
        door.close()
    await rpc.stop(grace=0)
    await asyncio.gather(*serving)
    await screening.close()
    await engine.close()


def listening() -> socket.socket:
    sock = socket.create_server((LOOPBACK, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # uvloop sets it, asyncio misses it here: 40 ms a call
    return sock


def _client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", trust_env=False, timeout=60)
