"""Gives decoded images to items. Each image is decoded once, and kept as long as there is memory for it."""

import asyncio
import contextlib
import math
from dataclasses import dataclass

from medreward.encoding.sizes import ImageSpec, OwnSize
from medreward.encoding.tiles import Tiles
from medreward.engine.images.resolve import ImageFile
from medreward.engine.images.slots import TOO_MANY_IMAGES, Picture, Slots
from medreward.engine.queue.batch_time import BatchTime
from medreward.engine.queue.scheduler import Room
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics
from medreward.types import Clock, Lane
from medreward.workers.decode.pool import DecoderLost, Decoders
from medreward.workers.frames import Decode


@dataclass(slots=True, eq=False)
class Decoding:
    """A picture that is being decoded, and how many callers wait for it."""

    task: asyncio.Task[Picture] | None = None
    waiters: int = 0
    has_begun: bool = False


class Pictures:
    """Gives decoded images: those that are kept, and others decoded once for all who ask for them at the same time."""

    def __init__(
        self,
        slots: Slots,
        sizes: ImageSpec | OwnSize | Tiles,
        decoders: Decoders,
        room: Room,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._slots = slots
        self._sizes = sizes
        self._decoders = decoders
        self.room = room  # for pixels that wait to be decoded
        self._time = BatchTime()
        self._metrics = metrics
        self._clock = clock
        self._decodings: dict[tuple[str, str], Decoding] = {}

    async def hold(self, file: ImageFile, tenant: str, lane: Lane, deadline: float) -> Picture:
        """Returns the decoded image with one more holder, the caller, who must take itself off again.

        Fails with an ItemError: too many images wait, the deadline cannot be met, or the image cannot be decoded.
        """
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
        """Takes room for a picture, which is given back when it is decoded, or refuses it."""
        ahead = self._seconds(len(self._decodings), self.room.all_taken) / self._decoders.count
        if not self.room.fits(pixels, lane):
            raise ItemError(Code.OVERLOADED, TOO_MANY_IMAGES, retry_after=max(1.0, math.ceil(ahead)))
        if lane is Lane.INTERACTIVE:
            ahead = 0.0  # it goes first
        if self._clock() + ahead + self._seconds(1, pixels) > deadline:
            raise ItemError(Code.DEADLINE, "the deadline cannot be met: too many images wait to be decoded")
        self.room.taken[lane] += pixels

    def _seconds(self, images: int, pixels: int) -> float:
        """Returns how long one decoder takes for these, judging by the latest images; 0 before the first was
        decoded.
        """
        return images * self._time.fixed + pixels * self._time.per_cost

    async def _decode(self, file: ImageFile, tenant: str, lane: Lane, decoding: Decoding) -> Picture:
        try:
            header = file.header
            spec = self._sizes.of(header.width, header.height, header.is_alone)
            picture = self._slots.new(file.digest, spec, tenant)
            try:
                await self._run(Decode(picture.place, header, spec, file.data), lane, decoding)
            except BaseException:
                self._slots.give_up(picture)
                raise
            self._slots.keep(picture)
            picture.holders = decoding.waiters
            return picture
        finally:
            self.room.taken[lane] -= file.header.pixels
            del self._decodings[tenant, file.digest]

    async def _run(self, image: Decode, lane: Lane, decoding: Decoding) -> None:
        """Has the image decoded. When its decoder is lost, something else may be to blame: it gets a second one."""
        for _ in range(2):
            child = await self._decoders.turn(lane)
            decoding.has_begun = True
            started = self._clock()
            with contextlib.suppress(DecoderLost):
                await self._decoders.decode(child, image)
                seconds = self._clock() - started
                self._time.learn(image.header.pixels, seconds)
                self._metrics.decode_duration.observe(seconds)
                return
        raise ItemError(Code.IMAGE_INVALID, "the image cannot be decoded", "image")
