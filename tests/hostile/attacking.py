"""What the tests of hostile input share: raw connections, the server's memory, and the score that must not change."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from asking import JSON, over_grpc, over_rest
from commands import Served
from medreward.settings import MIB
from serving import LOOPBACK, Server

GOOD = {"question": "Is there a fracture?", "response": "No fracture is seen."}


def memory(served: Served) -> int:
    """What the front process has in memory."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def peak_memory(served: Served) -> int:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@asynccontextmanager
async def unharmed(server: Server) -> AsyncIterator[None]:
    """The next good request gets the same score as before, to the last bit, through both doors."""
    before = await over_rest(server, GOOD), await over_grpc(server, GOOD)
    assert isinstance(before[0], list)
    yield
    assert (await over_rest(server, GOOD), await over_grpc(server, GOOD)) == before
    assert server.engine.bodies.held == 0


async def raw(port: int, sent: bytes, seconds: float = 60) -> bytes:
    """What comes back until the server closes the connection."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(sent)
        return await until_closed(reader, seconds)
    finally:
        writer.close()


async def until_closed(reader: asyncio.StreamReader, seconds: float = 60) -> bytes:
    """What comes until the server closes the connection; nothing if it is reset, as one with unread bytes is."""
    try:
        async with asyncio.timeout(seconds):
            return await reader.read()
    except ConnectionError:
        return b""


def head(*lines: str, path: str = "/v1/score", method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


async def timed(server: Server, body: bytes) -> tuple[Any, float]:
    started = time.monotonic()
    reply = await server.rest.post("/score", content=body, headers=JSON)
    return reply, time.monotonic() - started


BIG = 32 * MIB
