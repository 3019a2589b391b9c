"""A real `medreward serve` with its doors open, and the memory of its processes."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx

from commands import Served, serving
from faults.outside import children
from serving import STUB


@dataclass(frozen=True)
class Outside:
    served: Served
    rest: httpx.AsyncClient
    admin: httpx.AsyncClient
    channel: grpc.aio.Channel
    stub: Any

    def processes(self) -> set[int]:
        return {self.served.process.pid, *children(self.served)}


@asynccontextmanager
async def outside(folder: Path, *flags: str, **variables: str) -> AsyncIterator[Outside]:
    no_limit = [("grpc.max_send_message_length", -1)]
    with serving(folder, *flags, **variables) as served:
        lines = map(json.loads, served.log.read_text().splitlines())
        port = next(line["grpc_port"] for line in lines if line["event"] == "listening")
        async with (
            httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=60) as rest,
            httpx.AsyncClient(base_url=served.admin_url, trust_env=False, timeout=60) as admin,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", no_limit) as channel,
        ):
            yield Outside(served, rest, admin, channel, STUB(channel))


def printed(server: Outside) -> bytes:
    """What is on its stdout by now."""
    stdout = server.served.process.stdout
    assert stdout is not None
    os.set_blocking(stdout.fileno(), False)
    try:
        return os.read(stdout.fileno(), 1_000_000)
    except BlockingIOError:
        return b""


def memory(pid: int) -> int:
    """Bytes that a process has in memory now."""
    return _from_status(pid, "VmRSS")


def highest_memory(pid: int) -> int:
    """Since `forget_highest`."""
    return _from_status(pid, "VmHWM")


def forget_highest(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _from_status(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) * 1024
