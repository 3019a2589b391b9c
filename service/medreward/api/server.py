"""Runs the server's three ports (REST, gRPC, admin) in one process, from its start until it has drained."""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator
from typing import Final, NoReturn

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from medreward.api.access.hosts import address_of, is_loopback
from medreward.api.access.keyring import Keyring
from medreward.api.access.tls import Tls
from medreward.api.admin import create_admin_app
from medreward.api.rest.app import create_app
from medreward.api.rest.connections import bounded_connections
from medreward.api.rpc.server import Rpc
from medreward.engine.engine import Engine
from medreward.errors import ConfigurationError
from medreward.metrics import Metrics
from medreward.screening.screening import Screening
from medreward.settings import Settings
from medreward.tracing import start_tracing

log = logging.getLogger("medreward")

CANCEL_SECONDS: Final = 2.0  # in which a start that is cancelled must end its processes


class Door(uvicorn.Server):
    """A uvicorn server of one port that leaves signals to `serve`, which stops all ports together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def __init__(self, app: FastAPI, settings: Settings, tls: Tls | None = None) -> None:
        config = uvicorn.Config(
            app,
            http=bounded_connections(settings),
            log_config=None,
            access_log=False,
            proxy_headers=False,  # by default 127.0.0.1 may name any client
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
            ssl_context_factory=(lambda _config, _default: tls.context) if tls else None,
        )
        super().__init__(config)

    def close(self) -> None:
        self.should_exit = True


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then finishes the accepted requests. The process ends hard where that takes too
    long, at a second signal, and where the model was still loading."""
    host, admin_host = bindable(settings, "host"), bindable(settings, "admin_host")
    keys, tls = Keyring(settings.keys_file), Tls.of(settings)
    metrics = Metrics(CollectorRegistry())
    tracing = start_tracing(metrics)
    engine = Engine(settings, metrics)
    screening = Screening(engine)
    stop = _stop_on_signals()
    apps = create_app(engine, keys, screening, tracing), create_admin_app(engine, keys, screening, tls, tracing)
    doors = [Door(app, settings, tls) for app in apps]
    sockets = listen(host, settings.port), listen(admin_host, settings.admin_port)
    rpc = Rpc(engine, keys, screening, tls, tracing)
    if settings.grpc_port:
        listen(host, settings.grpc_port).close()  # gRPC itself would share a port that is in use
    grpc_port = await rpc.start(host, settings.grpc_port)
    ports = {"port": port_of(sockets[0]), "grpc_port": grpc_port, "admin_port": port_of(sockets[1])}
    log.info("listening", extra={"host": settings.host, **ports})
    serving = [asyncio.create_task(door.serve([sock])) for door, sock in zip(doors, sockets, strict=True)]
    watching = [asyncio.create_task(watched.watch()) for watched in (keys, tls) if watched]
    started = False
    try:
        started = await _started(engine, stop)
        if started:
            screening.start()
            await stop.wait()
        log.info("draining")
    finally:
        engine.stop()
        try:
            async with asyncio.timeout(settings.drain_seconds):
                await engine.idle()
                for door in doors:
                    door.close()
                await rpc.stop(grace=1)
                await asyncio.gather(*serving)
                await screening.close()
        except TimeoutError:
            _stop_hard(
                "stopped hard: the drain took longer than --drain-seconds, and requests are left unanswered",
                1,
                **engine.state(),
            )
        for watch in watching:
            watch.cancel()
        closing = [engine.close()]
        if tracing:
            closing.append(asyncio.to_thread(tracing.close))
        await asyncio.gather(*closing)
    if not started:
        _stop_hard("stopped", 0)  # a thread may be reading gigabytes: it is not waited for
    log.info("stopped")


async def _started(engine: Engine, stop: asyncio.Event) -> bool:
    """Returns whether the model was loaded before the server was told to stop."""
    loading = asyncio.create_task(engine.start())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not loading.done():
        loading.cancel()
        await asyncio.wait({loading}, timeout=CANCEL_SECONDS)
        return False
    loading.result()
    model = engine.serving.ref
    about = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "runtime": str(model.runtime),
        "evidence": model.evidence,
    }
    log.info("ready", extra=about)
    if model.name == "fake":
        log.warning("the fake backend is served: its numbers come from a hash and mean nothing")
    return True


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            _stop_hard("stopped hard by a second signal", 1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop


def _stop_hard(why: str, code: int, **state: object) -> NoReturn:
    """Ends the process at once, whatever a thread or a client is doing."""
    log.log(logging.ERROR if code else logging.INFO, why, extra=state)
    os._exit(code)


def bindable(settings: Settings, name: str) -> str:
    """Returns the address of a host setting. Without keys one that other machines can reach stops the start, unless
    `insecure` is set."""
    host: str = getattr(settings, name)
    address = address_of(host)
    if not is_loopback(address):
        if not (settings.keys_file or settings.insecure):
            raise ConfigurationError(
                f"setting {name}: {host or address} can be reached from other machines: "
                "give --keys-file, or --insecure to serve anyone"
            )
        if settings.keys_file and not settings.tls_cert:
            log.warning(
                "keys travel in clear text: give --tls-cert and --tls-key, or let a proxy in front end TLS",
                extra={"host": host},
            )
    return address


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens there; one that cannot be had stops the start."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # its connections inherit it
    return sock


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port
