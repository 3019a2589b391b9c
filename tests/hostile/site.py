"""An HTTPS host on loopback that answers as a test tells it to, bytes for bytes."""

import asyncio
import contextlib
import gc
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trustme

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]
NAMES = ("scans.example", "other.example", "127.0.0.1")


def page(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {length}", *headers])
    return head.encode() + b"\r\n\r\n" + body


def moved(to: str) -> bytes:
    return page(b"", f"Location: {to}", status="302 Found")


async def hang(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


@dataclass
class Site:
    authority: trustme.CA
    port: int = 0
    pages: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)  # heads, as they came
    connections: int = 0
    hanging: int = 0

    def trusted(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            answer = self.pages.get(head.split(" ")[1], page(b"", status="404 Not Found"))
            if callable(answer):
                self.hanging += 1
                await answer(writer)
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, EOFError):
            pass  # the client left
        finally:
            writer.close()


@asynccontextmanager
async def site_at(authority: trustme.CA) -> AsyncIterator[Site]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*NAMES).configure_cert(tls)
    site = Site(authority)
    running: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        task.add_done_callback(running.discard)
        with contextlib.suppress(asyncio.CancelledError):  # which Python 3.11's streams would report as a fault
            await site.answer(reader, writer)

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    server.close()
    for task in list(running):
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    with warnings.catch_warnings():  # a fetch whose time ends in the handshake leaves its socket to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
