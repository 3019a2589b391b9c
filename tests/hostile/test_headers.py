"""Headers, connections and targets: what a client may send before there is a request."""

import asyncio
import json
import time
from pathlib import Path

import httpx
import pytest

from asking import JSON, body_with
from commands import serving
from faults.outside import held
from hostile.attacking import GOOD, head, memory, raw, unharmed, until_closed
from medreward.settings import MIB
from serving import LOOPBACK, Server, running

pytestmark = pytest.mark.slow

IDLE = 10_000

HEADS = {
    "64 KB in one header": head("X-Long: " + "x" * 65_536),
    "64 KB in many headers": head(*[f"X-{n}: {'x' * 1000}" for n in range(65)]),
    "1,000 headers": head(*[f"X-{n}: x" for n in range(1000)]),
    "a target of 64 KB": head(path="/" + "x" * 65_536),
    "a header that never ends": b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 8 * MIB,
    "a name that never ends": b"GET / HTTP/1.1\r\n" + b"x" * MIB,
    "headers after the last chunk": head("Transfer-Encoding: chunked", path="/livez", method="GET")
    + b"0\r\nX-Long: "
    + b"x" * MIB,
}


@pytest.mark.parametrize("sent", HEADS.values(), ids=HEADS)
async def test_headers_too_large_or_too_many(sent: bytes) -> None:
    async with running(header_seconds=600) as server, unharmed(server):  # it is not the time that ends it
        answer = await raw(server.port, sent)
        if answer:  # the client may be cut off while it still sends
            assert b" 431 " in answer.partition(b"\r\n")[0] or b"headers_too_large" in answer
            assert b"application/problem+json" in answer
            assert b"xxxx" not in answer


async def test_headers_within_the_limits(fake: Server) -> None:
    headers = JSON | {f"x-{n}": "x" * 300 for n in range(90)}
    assert (await fake.rest.post("/score", content=body_with(""), headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01" * 20,
        b"GET\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused_in_our_words(fake: Server, sent: bytes) -> None:
    answer = await raw(fake.port, sent)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"malformed"' in answer


async def test_slow_headers_are_cut_off() -> None:
    async with running(header_seconds=2) as server, unharmed(server):
        reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
        answer = asyncio.create_task(until_closed(reader, 600))
        for byte in b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 1000:  # takes a minute
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        else:
            pytest.fail("it was not cut off")
        assert answer.result() == b""
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"\r\n", head(path="/livez", method="GET") + b"\r\n"])
async def test_a_connection_that_asks_nothing_is_closed(sent: bytes) -> None:
    async with running(header_seconds=1, keep_alive_seconds=1) as server:
        answer = await raw(server.port, sent)  # ends when the server closes it
        assert answer.startswith(b"HTTP/1.1 200 ") if b"GET" in sent or sent.startswith(b"POST") else answer == b""


async def test_a_connection_stays_open_between_requests_longer_than_a_request_may_dawdle() -> None:
    """A balancer that thinks a connection open, and sends on it as it is closed, answers 502."""
    async with running(header_seconds=1) as server:
        ask = head(path="/livez", method="GET")
        reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
        for _ in range(2):
            writer.write(ask)
            answer = await asyncio.wait_for(reader.readuntil(b'{"status":"live"}'), 60)
            assert answer.startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(2)
        writer.write(ask[:9])
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_an_answer_to_a_request_that_came_early_is_not_cut_off() -> None:
    """Sent together, so that the second is answered after it waited longer than headers may take."""
    async with running(header_seconds=1, fake_delay_ms=2000) as server:
        asked = b""
        for response, connection in (("yes", "keep-alive"), ("no", "close")):
            body = json.dumps(GOOD | {"response": response}).encode()
            lines = "Content-Type: application/json", f"Content-Length: {len(body)}", f"Connection: {connection}"
            asked += head(*lines) + body
        answer = await raw(server.port, asked)
        assert answer.count(b"HTTP/1.1 200 ") == 2


async def test_the_connection_that_waits_longest_makes_room() -> None:
    async with running(connections=3, header_seconds=120) as server:
        clients = [await asyncio.open_connection(LOOPBACK, server.port)]
        for _ in range(3):
            await asyncio.sleep(0.05)
            clients.append(await asyncio.open_connection(LOOPBACK, server.port))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(_read(clients[0][0]), 60)
        clients[3][1].write(head("Connection: close", path="/livez", method="GET"))
        assert (await clients[3][0].read()).startswith(b"HTTP/1.1 200 ")
        for _, writer in clients:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> None:
    if not await reader.read():
        raise ConnectionError


@pytest.mark.slow
async def test_ten_thousand_idle_connections_take_bounded_memory(tmp_path: Path) -> None:
    """A server of its own: 10,000 that send half a header, and a good client beside them."""
    with serving(tmp_path, "--header-seconds", "60") as served:
        port = int(served.url.rpartition(":")[2])
        before = memory(served)
        writers: list[asyncio.StreamWriter] = []
        for _ in range(IDLE // 500):
            opened = await asyncio.gather(*(asyncio.open_connection(LOOPBACK, port) for _ in range(500)))
            writers += [writer for _, writer in opened]
            for _, writer in opened:
                writer.write(b"POST /score HTTP/1.1\r\nX-Slow: ")
        async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=60) as client:
            assert (await client.post("/score", json=GOOD)).status_code == 200
        assert memory(served) - before < 150 * MIB
        assert held(served, "fd") < 4096 + 200
        for writer in writers:
            writer.transport.abort()


TARGETS = {
    "two slashes": ("//v1/model", 404),
    "encoded dots": ("/v1/%2e%2e/admin/state", 404),
    "dots": ("/v1/../admin/state", 404),
    "NUL": ("/v1/model%00", 404),
    "NUL in a static file": ("/static-offline-docs/%00", 404),
    "dots in a static file": ("/static-offline-docs/%2e%2e/%2e%2e/%2e%2e/etc/passwd", 404),
    "dots in an image's hash": ("/v1/images/..%2f..%2fetc%2fpasswd", 404),
    "absolute form, another host": ("http://evil.example/admin/state", 404),
    "a host in the path": ("localhost/v1/model", 400),
    "bad UTF-8": ("/v1/%ff%fe", 404),
}


@pytest.mark.parametrize(("target", "status"), TARGETS.values(), ids=TARGETS)
async def test_targets_that_try_to_get_round_the_routes(fake: Server, target: str, status: int) -> None:
    async with unharmed(fake):
        answer = await raw(fake.port, head("Connection: close", path=target, method="GET"))
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
        assert b"root:" not in answer
        assert b"application/problem+json" in answer


async def test_an_absolute_target_is_its_path(fake: Server) -> None:
    answer = await raw(fake.port, head("Connection: close", path="http://localhost/livez", method="GET"))
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_thousands_of_ranges(fake: Server) -> None:
    async with unharmed(fake):
        page = (await fake.rest.get("/docs")).text
        path = "/" + page.partition('src="/')[2].partition('"')[0]
        whole = await fake.rest.get(path)
        for ranges in (",".join(f"{n}-{n}" for n in range(0, 6000, 2)), "0-," * 5000 + "0-", "-" * 20_000):
            started = time.monotonic()
            reply = await fake.rest.get(path, headers={"range": f"bytes={ranges}"})
            assert time.monotonic() - started < 20
            assert reply.status_code in (200, 206, 400, 416)
            assert len(reply.content) < len(whole.content) + 2 * MIB


async def test_a_body_that_nobody_reads_does_not_keep_its_connection(fake: Server) -> None:
    async with running(header_seconds=1) as server:
        reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
        writer.write(head("Content-Length: 1000000", path="/nowhere"))
        async with asyncio.timeout(60):
            assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
        writer.close()
