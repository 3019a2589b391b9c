"""Decoded images in shared slots, each decoded once, by processes that may die."""

import asyncio
import contextlib
import logging
import math
import os
import time
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from medreward.encoding.image import ImageSpec, OwnSize, decode
from medreward.engine.images.extents import Extents
from medreward.engine.images.resolve import ImageFile
from medreward.engine.queue.batch_time import BatchTime
from medreward.engine.queue.scheduler import Room
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics
from medreward.types import Lane
from medreward.workers.frames import Decode, Decoded, Failure
from medreward.workers.memory import CHANNELS, PixelMemory, Place, anonymous_memory
from medreward.workers.process import ChildProcess

FEWEST_SLOTS: Final = 64  # of the largest size
SPAWN_AGAIN_SECONDS: Final = 1.0
TOO_MANY_IMAGES: Final = "too many images at once; try again later"

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Picture:
    """A decoded image of a tenant. Its place is given to another one only when nobody holds it."""

    digest: str
    tenant: str
    place: Place
    holders: int = 0


class Slots:
    """Shared memory for pictures; the least recently used that nobody holds goes first."""

    def __init__(self, pixels: int, max_bytes: int) -> None:
        """`pixels` are those of the largest picture."""
        self.size = max(FEWEST_SLOTS * pixels * CHANNELS, max_bytes)
        self.memory = PixelMemory(anonymous_memory(self.size))
        self._free = Extents(self.size)
        self._pictures: OrderedDict[tuple[str, str], Picture] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Taken by pictures, held or kept."""
        return self.size - self._free.free

    def get(self, digest: str, tenant: str = "") -> Picture | None:
        picture = self._pictures.get((tenant, digest))
        if picture:
            self._pictures.move_to_end((tenant, digest))
        return picture

    def new(self, digest: str, spec: ImageSpec, tenant: str = "") -> Picture:
        """A picture whose pixels are not there yet; `keep` makes it findable, `give_up` gives its memory back.

        Fails as overloaded when all the memory is taken by pictures that are held.
        """
        while (offset := self._free.take(spec.pixels * CHANNELS)) is None:
            self._evict()
        return Picture(digest, tenant, Place(offset, spec.height, spec.width))

    def keep(self, picture: Picture) -> None:
        self._pictures[picture.tenant, picture.digest] = picture

    def give_up(self, picture: Picture) -> None:
        self._free.give(picture.place.offset, picture.place.size)

    def close(self) -> None:
        os.close(self.memory.fd)

    def _evict(self) -> None:
        for key, picture in self._pictures.items():
            if not picture.holders:
                del self._pictures[key]
                self.give_up(picture)
                return
        raise ItemError(Code.OVERLOADED, TOO_MANY_IMAGES, retry_after=1)


class DecoderLost(Exception):
    """A decoder crashed or took too long over an image."""


class Decoders:
    """Processes that decode, one image at a time each, interactive images first; with none of them, threads do."""

    def __init__(self, slots: Slots, sizes: ImageSpec | OwnSize, processes: int, threads: int, seconds: float) -> None:
        self._slots = slots
        self._sizes = sizes
        self._processes = processes
        self._seconds = seconds
        self._idle: list[ChildProcess] = []
        self._waiting: dict[Lane, deque[asyncio.Future[ChildProcess]]] = {lane: deque() for lane in Lane}
        self.children: set[ChildProcess] = set()
        self._replacing: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.count = processes or threads

    async def start(self) -> None:
        await asyncio.gather(*(self._spawn() for _ in range(self._processes)))

    async def turn(self, lane: Lane) -> ChildProcess | None:
        """A decoder that is free now; None where threads decode, which queue by themselves."""
        if not self._processes:
            return None
        while True:
            child = self._idle.pop() if self._idle else await self._next(lane)
            if not child.is_gone:
                return child
            await self._replace(child)  # it went while nobody looked: no image is to blame

    def spec(self, file: ImageFile) -> ImageSpec:
        """What the model wants to see of it."""
        return self._sizes.of(file.header.width, file.header.height)

    async def decode(self, child: ChildProcess | None, file: ImageFile, picture: Picture) -> None:
        """Gives the decoder back."""
        spec = self.spec(file)
        if child is None:
            loop = asyncio.get_running_loop()
            pixels = await loop.run_in_executor(self._threads, decode, file.data, file.header, spec)
            self._slots.memory.pixels(picture.place)[:] = pixels
            return
        try:
            async with asyncio.timeout(self._seconds):
                await child.front.send(Decode(picture.place, file.header, spec, file.data))
                answer = await child.front.receive()
        except (EOFError, OSError, TimeoutError):
            await self._replace(child)
            raise DecoderLost from None
        except BaseException:  # whoever asked is gone, and the answer would be taken for the next one's
            await self._replace(child)
            raise
        self._give(child)
        if isinstance(answer, Failure):
            raise answer.error()
        assert isinstance(answer, Decoded)

    async def close(self) -> None:
        for task in self._replacing:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(*(child.end() for child in self.children))

    async def _next(self, lane: Lane) -> ChildProcess:
        waiting: asyncio.Future[ChildProcess] = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self._give(waiting.result())
            raise

    def _give(self, child: ChildProcess) -> None:
        for lane in (Lane.INTERACTIVE, Lane.BULK):
            while self._waiting[lane]:
                waiting = self._waiting[lane].popleft()
                if not waiting.done():
                    waiting.set_result(child)
                    return
        self._idle.append(child)

    async def _spawn(self) -> None:
        child = await ChildProcess.start("medreward.workers.decode.child", self._slots.memory.fd)
        self.children.add(child)
        self._give(child)

    async def _replace(self, child: ChildProcess) -> None:
        """Returns when the old one is gone, and writes into no slot any more."""
        log.error("an image decoder was lost and is being replaced")
        self.children.discard(child)
        child.kill()
        await child.end()
        task = asyncio.create_task(self._respawn(), name="decoder")
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _respawn(self) -> None:
        while True:
            try:
                return await self._spawn()
            except OSError as error:  # no file descriptor or no process to be had now
                log.error("an image decoder did not start; it is tried again", extra={"error": type(error).__name__})
            await asyncio.sleep(SPAWN_AGAIN_SECONDS)


@dataclass(slots=True, eq=False)
class Decoding:
    """A picture in the making, and how many wait for it."""

    task: asyncio.Task[Picture] | None = None
    waiters: int = 0
    has_begun: bool = False


class Pictures:
    """The front's way to pixels: from a slot, or decoded once for all who ask at the time."""

    def __init__(self, slots: Slots, decoders: Decoders, room: Room, metrics: Metrics) -> None:
        self._slots = slots
        self._decoders = decoders
        self.room = room  # for pixels to decode
        self._time = BatchTime()
        self._metrics = metrics
        self._decodings: dict[tuple[str, str], Decoding] = {}

    async def held(self, file: ImageFile, tenant: str, lane: Lane, deadline: float) -> Picture:
        """The decoded image, held for the caller, who releases it."""
        key = tenant, file.digest
        picture = self._slots.get(file.digest, tenant)
        self._metrics.count_cache("pixels", hits=int(picture is not None), misses=int(picture is None))
        if picture:
            picture.holders += 1
            return picture
        decoding = self._decodings.get(key)
        if decoding is None:
            self._admit(file.header.pixels, lane, deadline)
            decoding = self._decodings[key] = Decoding()
            decoding.task = asyncio.create_task(self._decode(file, tenant, lane, decoding))
        assert decoding.task is not None
        decoding.waiters += 1
        try:
            return await asyncio.shield(decoding.task)
        except asyncio.CancelledError:
            decoding.waiters -= 1
            if decoding.task.done():
                if not decoding.task.exception():
                    decoding.task.result().holders -= 1
            elif not decoding.waiters and not decoding.has_begun:
                decoding.task.cancel()
            raise

    def _admit(self, pixels: int, lane: Lane, deadline: float) -> None:
        """Room for a picture, which its decoding gives back."""
        ahead = self._seconds(len(self._decodings), self.room.all_taken) / self._decoders.count
        if not self.room.fits(pixels, lane):
            raise ItemError(Code.OVERLOADED, TOO_MANY_IMAGES, retry_after=max(1.0, math.ceil(ahead)))
        if lane is Lane.INTERACTIVE:
            ahead = 0.0  # it goes first
        if time.monotonic() + ahead + self._seconds(1, pixels) > deadline:
            raise ItemError(Code.DEADLINE, "the deadline cannot be met: too many images wait to be decoded")
        self.room.taken[lane] += pixels

    def _seconds(self, images: int, pixels: int) -> float:
        """On one decoder, by the times of late; 0 while nothing is known."""
        return images * self._time.fixed + pixels * self._time.per_cost

    async def _decode(self, file: ImageFile, tenant: str, lane: Lane, decoding: Decoding) -> Picture:
        try:
            picture = self._slots.new(file.digest, self._decoders.spec(file), tenant)
            try:
                await self._decoded(file, lane, picture, decoding)
            except BaseException:
                self._slots.give_up(picture)
                raise
            self._slots.keep(picture)
            picture.holders = decoding.waiters
            return picture
        finally:
            self.room.taken[lane] -= file.header.pixels
            del self._decodings[tenant, file.digest]

    async def _decoded(self, file: ImageFile, lane: Lane, picture: Picture, decoding: Decoding) -> None:
        """A decoder lost over an image may have been ended by something else: the image gets a second one."""
        for _ in range(2):
            child = await self._decoders.turn(lane)
            decoding.has_begun = True
            started = time.monotonic()
            with contextlib.suppress(DecoderLost):
                await self._decoders.decode(child, file, picture)
                seconds = time.monotonic() - started
                self._time.learn(file.header.pixels, seconds)
                self._metrics.decode_duration.observe(seconds)
                return
        raise ItemError(Code.IMAGE_INVALID, "the image cannot be decoded", "image")
