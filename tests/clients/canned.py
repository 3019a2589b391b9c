"""A server that is no MedReward: it notes each request and answers what it is told to."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from clients.sockets import listening
from medreward.types import DIMENSIONS

MODEL = {"name": "m", "version": "1", "fingerprint": "sha256:a", "runtime": "fake/cpu/fp32", "evidence": "none"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def items(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = msgspec.json.decode(self.body)["items"]
        return items


Answer = tuple[int, dict[str, str], bytes]
Answering = Callable[[Request], Answer | None]  # None: never


@dataclass
class Canned:
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    open: int = 0  # connections
    copies: int = 1  # of each answer
    pause_s: float = 0.0  # before it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST"]


def right_answer(request: Request, fingerprint: str = "sha256:a") -> Answer:
    """The reward of a response is its length."""
    if request.method == "PUT":
        return 201, {}, msgspec.json.encode({"sha256": hashlib.sha256(request.body).hexdigest()})
    model = MODEL | {"fingerprint": fingerprint}
    if request.method == "GET":
        return 200, {}, msgspec.json.encode(model)
    results: list[dict[str, Any]] = [
        {
            "item": i,
            "response": j,
            "status": "ok",
            "scores": dict.fromkeys(DIMENSIONS, 0.5),
            "logits": dict.fromkeys(DIMENSIONS, 0.0),
            "uncertainty": None,
            "reward": float(len(response)),
            "flags": [],
        }
        for i, item in enumerate(request.items)
        for j, response in enumerate(item["responses"])
    ]
    body = {"id": request.headers["x-request-id"], "model": model, "results": results}
    return 200, {}, msgspec.json.encode(body)


def problem(status: int, code: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, msgspec.json.encode({"code": code, "detail": "as the test wants it"})


@asynccontextmanager
async def canned(answering: Answering, tls: ssl.SSLContext | None = None) -> AsyncIterator[Canned]:
    server = Canned()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.open += 1
        try:
            while True:
                request = await _read(reader)
                server.requests.append(request)
                answer = answering(request)
                if answer is None:
                    await reader.read()  # until the client hangs up
                    return
                await asyncio.sleep(server.pause_s)
                writer.write(_written(*answer) * server.copies)
                await writer.drain()
        finally:
            server.open -= 1

    async with listening(connection, tls) as server.port:
        yield server


def _written(status: int, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _read(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))
