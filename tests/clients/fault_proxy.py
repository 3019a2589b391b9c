"""A proxy that spoils the replies of a server on their way back: 5% of them, by a seeded generator."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from clients.sockets import Handler, listening

HEAD_END = b"\r\n\r\n"
FAULTS = ("drop", "delay", "truncate", "duplicate")


@dataclass
class Faults:
    share: float
    seed: int
    delay_s: float = 0.3
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def next(self) -> str:
        fault = self.random.choice(FAULTS) if self.random.random() < self.share else "none"
        self.done[fault] += 1
        return fault


@asynccontextmanager
async def http_proxy(server_port: int, faults: Faults) -> AsyncIterator[int]:
    """Whole HTTP/1.1 replies are dropped, delayed, cut short or sent twice. Yields the proxy's port."""

    async def back(server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while True:
            head = await server.readuntil(HEAD_END)
            lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            reply = head + await server.readexactly(sum(lengths))
            match faults.next():
                case "drop":
                    return
                case "truncate":
                    client.write(reply[: len(reply) // 2])
                    await client.drain()
                    return
                case "duplicate":
                    client.write(reply + reply)
                case "delay":
                    await asyncio.sleep(faults.delay_s)
                    client.write(reply)
                case _:
                    client.write(reply)
            await client.drain()

    async with listening(lambda reader, writer: _pass_on(reader, writer, server_port, back)) as port:
        yield port


@asynccontextmanager
async def resetting_proxy(server_port: int, share: float, seed: int) -> AsyncIterator[int]:
    """Connections are reset in the middle of what the server sends: after that share of its packets."""
    chance = random.Random(seed)

    async def back(server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(65536):
            if chance.random() < share:
                client.write(data[: len(data) // 2])
                client.transport.abort()
                return
            client.write(data)
            await client.drain()

    async with listening(lambda reader, writer: _pass_on(reader, writer, server_port, back)) as port:
        yield port


async def _pass_on(reader: asyncio.StreamReader, client: asyncio.StreamWriter, server_port: int, back: Handler) -> None:
    server_reader, server = await asyncio.open_connection("127.0.0.1", server_port)
    pumps = [asyncio.create_task(_forth(reader, server)), asyncio.create_task(back(server_reader, client))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.close()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _forth(client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
    while data := await client.read(65536):
        server.write(data)
        await server.drain()
