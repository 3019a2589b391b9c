"""Decoded images in shared slots, each decoded once, by processes that may die."""

import asyncio
import logging
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from medreward.encoding.image import ImageHeader, ImageSpec, decode
from medreward.engine.images import ImageFile
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics
from medreward.workers.children import ChildProcess, anonymous_memory
from medreward.workers.frames import Decode, Decoded, Failure
from medreward.workers.pixels import mapped, slot_bytes

FEWEST_SLOTS: Final = 64

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Picture:
    """A decoded image. Its slot is given to another one only when nobody holds it."""

    key: str
    slot: int
    pixels: NDArray[np.uint8]
    holders: int = 0


class Slots:
    """Shared memory for so many pictures; the least recently used that nobody holds goes first."""

    def __init__(self, shape: tuple[int, int, int], max_bytes: int) -> None:
        self.count = max(FEWEST_SLOTS, max_bytes // slot_bytes(shape))
        self.fd = anonymous_memory(self.count * slot_bytes(shape))
        self._arrays = mapped(self.fd, shape)
        self._free = list(range(self.count))
        self._pictures: OrderedDict[str, Picture] = OrderedDict()

    def get(self, key: str) -> Picture | None:
        picture = self._pictures.get(key)
        if picture:
            self._pictures.move_to_end(key)
        return picture

    def new(self, key: str) -> Picture:
        """A slot whose content is not there yet; `keep` makes it findable, `give_up` gives it back."""
        if not self._free:
            self._evict()
        slot = self._free.pop()
        return Picture(key, slot, self._arrays[slot])

    def keep(self, picture: Picture) -> None:
        self._pictures[picture.key] = picture

    def give_up(self, picture: Picture) -> None:
        self._free.append(picture.slot)

    def close(self) -> None:
        os.close(self.fd)

    def _evict(self) -> None:
        for key, picture in self._pictures.items():
            if not picture.holders:
                del self._pictures[key]
                self._free.append(picture.slot)
                return
        raise ItemError(Code.OVERLOADED, "too many images at once; try again later", retry_after=1)


class DecoderLost(Exception):
    """A decoder crashed or took too long over an image."""


class Decoders:
    """Processes that decode, one image at a time each; with none of them, threads do."""

    def __init__(self, slots: Slots, spec: ImageSpec, processes: int, threads: int, seconds: float) -> None:
        self._slots = slots
        self._spec = spec
        self._processes = processes
        self._seconds = seconds
        self._idle: asyncio.Queue[ChildProcess] = asyncio.Queue()
        self.children: set[ChildProcess] = set()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def start(self) -> None:
        await asyncio.gather(*(self._spawn() for _ in range(self._processes)))

    async def decode(self, data: bytes, header: ImageHeader, picture: Picture) -> None:
        if not self._processes:
            loop = asyncio.get_running_loop()
            picture.pixels[:] = await loop.run_in_executor(self._threads, decode, data, header, self._spec)
            return
        child = await self._idle.get()
        while child.is_gone:  # while nobody looked: no image is to blame
            await self._replace(child)
            child = await self._idle.get()
        try:
            async with asyncio.timeout(self._seconds):
                await child.front.send(Decode(picture.slot, header.kind, header.width, header.height, data))
                answer = await child.front.receive()
        except (EOFError, OSError, TimeoutError):
            await self._replace(child)
            raise DecoderLost from None
        except BaseException:  # whoever asked is gone, and the answer would be taken for the next one's
            await self._replace(child)
            raise
        self._idle.put_nowait(child)
        if isinstance(answer, Failure):
            raise answer.error()
        assert isinstance(answer, Decoded)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(*(child.end() for child in self.children))

    async def _spawn(self) -> None:
        arguments = (str(self._spec.width), str(self._spec.height), self._spec.fit)
        child = await ChildProcess.start("medreward.workers.decoder", self._slots.fd, arguments)
        self.children.add(child)
        self._idle.put_nowait(child)

    async def _replace(self, child: ChildProcess) -> None:
        log.error("decoder lost")
        self.children.discard(child)
        child.kill()
        await child.end()
        await self._spawn()


@dataclass(slots=True, eq=False)
class Decoding:
    """A picture in the making, and how many wait for it."""

    task: asyncio.Task[Picture] | None = None
    waiters: int = 0


class Pictures:
    """The front's way to pixels: from a slot, or decoded once for all who ask at the time."""

    def __init__(self, slots: Slots, decoders: Decoders, metrics: Metrics) -> None:
        self._slots = slots
        self._decoders = decoders
        self._metrics = metrics
        self._decodings: dict[str, Decoding] = {}

    async def held(self, file: ImageFile, tenant: str) -> Picture:
        """The decoded image, held for the caller, who releases it."""
        key = f"{tenant}/{file.digest}"
        picture = self._slots.get(key)
        self._metrics.count_cache("pixels", hits=int(picture is not None), misses=int(picture is None))
        if picture:
            picture.holders += 1
            return picture
        decoding = self._decodings.get(key)
        if decoding is None:
            decoding = self._decodings[key] = Decoding()
            decoding.task = asyncio.create_task(self._decode(key, file, decoding))
        assert decoding.task is not None
        decoding.waiters += 1
        try:
            return await asyncio.shield(decoding.task)
        except asyncio.CancelledError:
            decoding.waiters -= 1
            if decoding.task.done() and not decoding.task.exception():
                decoding.task.result().holders -= 1
            raise

    async def _decode(self, key: str, file: ImageFile, decoding: Decoding) -> Picture:
        try:
            picture = self._slots.new(key)
            try:
                await self._decoded(file, picture)
            except BaseException:
                self._slots.give_up(picture)
                raise
            self._slots.keep(picture)
            picture.holders = decoding.waiters
            return picture
        finally:
            del self._decodings[key]

    async def _decoded(self, file: ImageFile, picture: Picture) -> None:
        """A decoder lost over an image may have been ended by something else: the image gets a second one."""
        try:
            await self._decoders.decode(file.data, file.header, picture)
        except DecoderLost:
            try:
                await self._decoders.decode(file.data, file.header, picture)
            except DecoderLost:
                raise ItemError(Code.IMAGE_INVALID, "the image cannot be decoded", "image") from None
