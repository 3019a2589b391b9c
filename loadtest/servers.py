"""Starts a server of its own on chosen cores, waits until it is ready, stops it whatever happens."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx

ROOT = Path(__file__).parents[1]
READY_SECONDS = 60.0


class ServerError(Exception):
    """The server did not become ready; the message ends with what it printed."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def medreward_command(port: int) -> list[str]:
    medreward = Path(sys.executable).with_name("medreward")
    ports = ["--port", str(port), "--grpc-port", str(free_port()), "--admin-port", str(free_port())]
    return [str(medreward), "serve", "--model", "fake", *ports]


@contextmanager
def serving(command: Sequence[str], ready_url: str, cores: set[int], patience: float = READY_SECONDS) -> Iterator[int]:
    """Yields the process id."""
    with tempfile.TemporaryFile() as log:
        process = _start(command, cores, log)
        try:
            _await_ready(process, ready_url, log, patience)
            yield process.pid
        finally:
            _stop(process)


def _start(command: Sequence[str], cores: set[int], log: IO[bytes]) -> subprocess.Popen[bytes]:
    own = os.sched_getaffinity(0)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'service'}", "RAY_USAGE_STATS_ENABLED": "0"}
    os.sched_setaffinity(0, cores)  # a child inherits it from its first instruction on
    try:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    finally:
        os.sched_setaffinity(0, own)


def _await_ready(process: subprocess.Popen[bytes], url: str, log: IO[bytes], patience: float) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=2).status_code == 200:
                return
        time.sleep(0.1)
    log.seek(0)
    raise ServerError(f"no answer at {url}; the server said:\n{log.read().decode(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever it left behind in its own session
    process.wait()
