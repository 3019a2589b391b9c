"""The messages between the front and its children: msgpack on a unix socket. Pixels lie in shared memory."""

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from medreward.backends.base import CostModel, Counts, Group, HeadOutputs, ModelImage
from medreward.encoding.sizes import Cut, ImageHeader, ImageSpec
from medreward.errors import Code, ItemError
from medreward.types import Runtime
from medreward.workers.memory import PixelMemory, Place

LENGTH: Final = struct.Struct("<I")
STREAM_BYTES: Final = 1 << 20  # read ahead


class Load(msgspec.Struct, tag=True):
    settings: dict[str, Any]
    manifest: dict[str, Any]
    folder: str | None  # None: the fake backend
    verified_at: int


class Loaded(msgspec.Struct, tag=True):
    runtime: Runtime
    cost: CostModel


class Refused(msgspec.Struct, tag=True):
    message: str


class Beat(msgspec.Struct, tag=True):
    """The process lives; sent by a thread of its own, so that a long batch does not look like a hang."""


class ImageFrame(msgspec.Struct, array_like=True):
    """An image that lies in the shared memory."""

    place: Place
    digest: str
    tenant: str
    cut: Cut | None = None


class GroupFrame(msgspec.Struct, array_like=True):
    """A group whose images lie in the shared memory, as the front hands it to a worker."""

    images: Sequence[ImageFrame]
    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]
    expert: str = ""

    def group(self, memory: PixelMemory) -> Group:
        """What a backend is asked to score; the pixels of its images are views of the memory."""
        images = [ModelImage(each.digest, memory.pixels(each.place), each.tenant, each.cut) for each in self.images]
        further = tuple(images[1:])
        return Group(images[0] if images else None, self.prompt, self.answers, further, self.expert)


class Run(msgspec.Struct, tag=True):
    groups: Sequence[GroupFrame]


class Rest(msgspec.Struct, tag=True):
    """Give the device back, but keep the model."""


class Resume(msgspec.Struct, tag=True):
    """Take the device again."""


class Settled(msgspec.Struct, tag=True):
    """A Rest or a Resume is done; `problem` says why it failed."""

    problem: str | None = None


class Failure(msgspec.Struct, tag=True):
    code: Code
    detail: str
    field: str = ""

    def error(self) -> ItemError:
        return ItemError(self.code, self.detail, self.field)


class OutputsFrame(msgspec.Struct, tag=True):
    columns: int
    numbers: bytes  # float32

    def outputs(self) -> HeadOutputs:
        """Returns the outputs as the backend gave them."""
        return np.frombuffer(self.numbers, np.float32).reshape(-1, self.columns)


class Ran(msgspec.Struct, tag=True):
    outcomes: list[list[OutputsFrame | Failure]]  # of each answer of each group
    started: float  # in seconds of time.monotonic, which all processes of a machine share
    seconds: float
    counts: Counts


class Decode(msgspec.Struct, tag=True):
    place: Place  # where its pixels go
    header: ImageHeader
    spec: ImageSpec
    data: bytes


class Decoded(msgspec.Struct, tag=True):
    pass


ToChild = Load | Run | Rest | Resume | Decode
FromChild = Loaded | Refused | Beat | Ran | Settled | Decoded | Failure

_to_child = msgspec.msgpack.Decoder(ToChild)
_from_child = msgspec.msgpack.Decoder(FromChild)
_encoder = msgspec.msgpack.Encoder()


def encode(frame: ToChild | FromChild) -> bytes:
    """Returns the frame as it goes over the socket, its length in front."""
    body = _encoder.encode(frame)
    return LENGTH.pack(len(body)) + body


class Front:
    """The front's end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def of(cls, sock: socket.socket) -> "Front":
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=STREAM_BYTES))

    async def send(self, frame: ToChild) -> None:
        """Sends a frame. Fails with an OSError when the child is gone."""
        if self._writer.is_closing():  # uvloop itself would raise a RuntimeError
            raise ConnectionResetError
        self._writer.write(encode(frame))
        await self._writer.drain()

    async def receive(self) -> FromChild:
        """Returns the next frame. Fails with an EOFError or OSError when the child is gone."""
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        frame: FromChild = _from_child.decode(await self._reader.readexactly(length))
        return frame

    def close(self) -> None:
        self._writer.close()


class Child:
    """The child's end of the socket; its calls block."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)

    def send(self, frame: FromChild) -> None:
        self._socket.sendall(encode(frame))

    def receive(self) -> ToChild:
        """Returns the next frame. Fails with an EOFError when the front is gone."""
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        frame: ToChild = _to_child.decode(self._exactly(length))
        return frame

    def _exactly(self, count: int) -> bytearray:
        buffer = bytearray(count)
        view = memoryview(buffer)
        while view:
            got = self._socket.recv_into(view)
            if not got:
                raise EOFError
            view = view[got:]
        return buffer
