"""The gRPC door against messages, metadata and connections that mean harm."""

import asyncio
import contextlib
import gzip
import socket
import struct
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from asking import Refusal, refused
from commands import serving
from hostile.attacking import BIG, GOOD, memory, unharmed
from medreward.proto import reward_pb2 as pb
from medreward.settings import MIB
from serving import BODY_BYTES, LOOPBACK, Server, running
from waiting import until

pytestmark = pytest.mark.slow

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
METHODS = ("Score", "Rank", "PutImage", "GetModel")


async def send(server: Server, message: bytes, method: str = "Score", **beside: Any) -> Refusal:
    call: Any = server.channel.unary_unary(f"/medreward.v1.RewardService/{method}")
    return await refused(call(message, **beside))


def good() -> bytes:
    item = pb.Item(question=GOOD["question"], responses=[GOOD["response"]])
    return pb.ScoreRequest(items=[item]).SerializeToString()


def packed(number: int, content: bytes) -> bytes:
    """A field of bytes; short ones only."""
    return bytes([number << 3 | 2, len(content)]) + content


UNREADABLE = {
    "rubbish": b"\xff\xff\xff",
    "cut short": good()[:-3],
    "bad UTF-8 in a question": packed(2, packed(2, b"\xff\xfe")),
    "bad UTF-8 in a lane": packed(5, b"\xed\xa0\x80"),
    "10,000 groups deep": b"\x7b" * 10_000 + b"\x7c" * 10_000,
    "field number 0": b"\x00\x00",
    "a length beyond everything": b"\x12" + b"\xff" * 9 + b"\x01",
    "a varint that does not end": b"\x80" * 50,
}


@pytest.mark.parametrize("message", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_message_that_cannot_be_read_is_refused_in_our_words(fake: Server, message: bytes) -> None:
    async with unharmed(fake):
        assert await send(fake, message) == Refusal(INVALID, "malformed", "")


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_refuses_rubbish(fake: Server, method: str) -> None:
    assert await send(fake, b"\xff\xff\xff", method) == Refusal(INVALID, "malformed", "")


UNKNOWN = {
    "at the top": good() + b"\xf8\x07\x01",
    "in an item": packed(2, packed(2, b"q") + packed(3, b"r") + packed(9, b"Jane Doe")),
    "in the options": good() + packed(4, packed(9, b"x")),
}


@pytest.mark.parametrize("message", UNKNOWN.values(), ids=UNKNOWN)
async def test_an_unknown_field_is_refused_as_in_json(fake: Server, message: bytes) -> None:
    async with unharmed(fake):
        assert await send(fake, message) == Refusal(INVALID, "unknown_field", "")


MANY = {"items": b"\x12\x00", "responses": None, "request ids": b"\x0a\x00", "unknown fields": b"\xf8\x07\x01"}


@pytest.mark.slow
@pytest.mark.parametrize("field", MANY)
async def test_a_message_of_millions_of_fields_is_refused_before_it_is_parsed(field: str) -> None:
    """Parsed, 32 MiB of empty items would take two seconds and a gigabyte."""
    one = MANY[field]
    inner = b"\x1a\x00" * (8 * MIB)
    sent = one * (BIG // len(one)) if one else b"\x12" + _varint(len(inner)) + inner
    async with running(body_bytes=BIG) as server, unharmed(server):
        started = time.monotonic()
        assert await send(server, sent) == Refusal(INVALID, "too_many", "")
        assert time.monotonic() - started < 20


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


async def test_a_message_over_the_cap(fake: Server) -> None:
    async with unharmed(fake):
        assert (await send(fake, b"\0" * (BODY_BYTES + MIB))).status is EXHAUSTED


async def test_messages_beyond_the_budget_are_shed() -> None:
    async with running(bodies_bytes=MIB) as server, unharmed(server):
        large = pb.PutImageRequest(data=b"\0" * 2 * MIB).SerializeToString()
        assert await send(server, large, "PutImage") == Refusal(EXHAUSTED, "overloaded", "")
        large = pb.ScoreRequest(items=[pb.Item(question="q" * 2 * MIB, responses=["r"])]).SerializeToString()
        assert await send(server, large) == Refusal(EXHAUSTED, "overloaded", "")
        stream: Any = server.stub.ScoreStream()
        await stream.write(pb.ScoreRequest.FromString(large))
        assert (await stream.read()).results[0].error.code == "overloaded"
        await stream.write(pb.ScoreRequest.FromString(good()))
        assert (await stream.read()).results[0].HasField("scores")
        await stream.done_writing()


@pytest.mark.slow
async def test_a_compressed_message_is_not_unpacked(tmp_path: Path) -> None:
    """1000:1, in a frame made by hand: gRPC's own client would need the unpacked message first."""
    bomb = gzip.compress(b"\0" * 256 * MIB)
    with serving(tmp_path) as served:
        before = memory(served)
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{served.grpc_port}") as channel:
            call: Any = channel.unary_unary("/medreward.v1.RewardService/Score")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(good() * 100, compression=grpc.Compression.Gzip)
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
            await asyncio.to_thread(_send_frame, served.grpc_port, bomb)
            await call(good())
        assert memory(served) - before < 100 * MIB


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def _field(name: bytes, value: bytes) -> bytes:
    """HPACK without its tables."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"")
HEADERS = b"".join(
    _field(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/medreward.v1.RewardService/Score"),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"grpc-encoding", b"gzip"),
    )
)


def _send_frame(port: int, packed: bytes) -> None:
    message = b"\x01" + struct.pack(">I", len(packed)) + packed
    with socket.create_connection((LOOPBACK, port), timeout=60) as client:
        client.sendall(PREFACE + _frame(1, 4, 1, HEADERS))
        for at in range(0, min(len(message), 60_000), 16_000):
            client.sendall(_frame(0, 0, 1, message[at : at + 16_000]))
        client.settimeout(1)
        with contextlib.suppress(OSError):
            while client.recv(65_536):
                pass


@pytest.mark.slow
async def test_a_rapid_reset_leaves_the_good_client_its_server(tmp_path: Path) -> None:
    """20,000 streams opened and reset at once over one connection."""
    with serving(tmp_path) as served:
        before = memory(served)
        reader, writer = await asyncio.open_connection(LOOPBACK, served.grpc_port)
        writer.write(PREFACE)
        for n in range(20_000):
            stream = 2 * n + 1
            writer.write(_frame(1, 4, stream, HEADERS) + _frame(3, 0, stream, struct.pack(">I", 8)))
        reading = asyncio.create_task(reader.read())
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{served.grpc_port}") as channel:
            call: Any = channel.unary_unary("/medreward.v1.RewardService/Score")
            reply = pb.ScoreResponse.FromString(await call(good(), timeout=60))
        assert reply.results[0].HasField("scores")
        assert memory(served) - before < 150 * MIB
        async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=60) as client:
            assert (await client.get("/livez")).status_code == 200
        writer.transport.abort()
        reading.cancel()


async def test_metadata_of_64_kb(fake: Server) -> None:
    async with unharmed(fake):
        assert (await send(fake, good(), metadata=(("x-long", "x" * 65_536),))).status is EXHAUSTED


@pytest.mark.parametrize("deadline", ["0.001", "expired"])
async def test_a_deadline_that_cannot_be_met_is_not_queued(slow: Server, deadline: str) -> None:
    await until(lambda: slow.engine.state()["cost_admitted"] == 0)
    batches = slow.engine.metrics.batch_items.collect()
    if deadline == "expired":
        reply = await slow.rest.post("/score", json=GOOD, headers={"x-deadline-ms": "1"})
        assert (reply.status_code, reply.json()["code"]) == (504, "deadline")
    else:
        assert (await send(slow, good(), timeout=0.001)).status is grpc.StatusCode.DEADLINE_EXCEEDED
        answer = await send(slow, good(), metadata=(("x-deadline-ms", "1"),))
        assert answer == Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "deadline", "")
    assert slow.engine.metrics.batch_items.collect() == batches
    assert slow.engine.bodies.held == 0


async def test_clients_that_leave_a_call_give_its_bytes_back(slow: Server) -> None:
    """The crowd of a thousand is tests/faults/test_crowds.py; this is what they hold in memory."""
    calls = [slow.stub.Score(pb.ScoreRequest.FromString(good())) for _ in range(20)]
    await asyncio.sleep(0.1)
    for call in calls:
        call.cancel()
    await until(lambda: not slow.engine.bodies.held)
    assert slow.engine.state()["request_bytes"] == 0
