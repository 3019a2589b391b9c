"""Pictures in shared slots: decoded once, held while used, evicted in order; decoders that die take nobody along."""

import asyncio
import hashlib
import io
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry

from medreward.encoding.sizes import ImageHeader, ImageSpec
from medreward.engine.images.pictures import Pictures
from medreward.engine.images.resolve import ImageFile
from medreward.engine.images.slots import FEWEST_SLOTS, Extents, Picture, Slots
from medreward.engine.queue.scheduler import Room
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics
from medreward.types import Lane
from medreward.workers.decode import pool
from medreward.workers.decode.pool import DecoderLost, Decoders
from medreward.workers.frames import Decode
from medreward.workers.process import ChildProcess
from waiting import until

SPEC = ImageSpec(16, 16)


def file_of(shade: int) -> ImageFile:
    buffer = io.BytesIO()
    Image.new("L", (40, 40), shade).save(buffer, "PNG")
    data = buffer.getvalue()
    return ImageFile(hashlib.sha256(data).hexdigest(), data, ImageHeader("png", 40, 40))


def to_decode(file: ImageFile, picture: Picture) -> Decode:
    return Decode(picture.place, file.header, SPEC, file.data)


class Counting(Decoders):
    """Threads that decode; counts, and waits where a test says so."""

    decoded = 0
    gate: asyncio.Event | None = None

    async def decode(self, child: ChildProcess | None, image: Decode) -> None:
        self.decoded += 1
        if self.gate:
            await self.gate.wait()
        await super().decode(child, image)


@pytest.fixture
async def slots() -> AsyncIterator[Slots]:
    slots = Slots(SPEC.pixels, 0)
    yield slots
    slots.close()


@pytest.fixture
async def decoders(slots: Slots) -> AsyncIterator[Counting]:
    decoders = Counting(slots.memory, processes=0, threads=2, seconds=5)
    yield decoders
    await decoders.close()


@pytest.fixture
def pictures(slots: Slots, decoders: Counting) -> Pictures:
    return pictures_of(slots, decoders)


def pictures_of(slots: Slots, decoders: Decoders, room: int = 10**9) -> Pictures:
    return Pictures(slots, SPEC, decoders, Room(room), Metrics(CollectorRegistry()), time.monotonic)


async def held(
    pictures: Pictures, file: ImageFile, tenant: str = "", lane: Lane = Lane.BULK, seconds: float = 60.0
) -> Picture:
    return await pictures.hold(file, tenant, lane, time.monotonic() + seconds)


def pixels_of(picture: Picture, slots: Slots) -> NDArray[np.uint8]:
    return slots.memory.pixels(picture.place)


async def test_an_image_is_decoded_once_for_all_who_ask(pictures: Pictures, decoders: Counting, slots: Slots) -> None:
    together = await asyncio.gather(*(held(pictures, file_of(7)) for _ in range(5)))
    later = await held(pictures, file_of(7))
    assert decoders.decoded == 1
    assert {id(picture) for picture in (*together, later)} == {id(later)}
    assert (pixels_of(later, slots) == 7).all()
    assert later.holders == 6


async def test_a_tenant_does_not_profit_from_what_another_sent(pictures: Pictures, decoders: Counting) -> None:
    await held(pictures, file_of(7), "a")
    await held(pictures, file_of(7), "b")
    assert decoders.decoded == 2


async def test_what_is_held_stays_and_the_least_recently_used_goes(
    pictures: Pictures, decoders: Counting, slots: Slots
) -> None:
    first = await held(pictures, file_of(0))
    for shade in range(1, FEWEST_SLOTS + 20):
        (await held(pictures, file_of(shade))).holders -= 1
    assert (pixels_of(first, slots) == 0).all()
    before = decoders.decoded
    await held(pictures, file_of(0))
    await held(pictures, file_of(FEWEST_SLOTS + 19))
    assert decoders.decoded == before
    await held(pictures, file_of(1))
    assert decoders.decoded == before + 1


async def test_more_images_at_once_than_slots_is_overload(pictures: Pictures) -> None:
    for shade in range(FEWEST_SLOTS):
        await held(pictures, file_of(shade))
    with pytest.raises(ItemError) as refused:
        await held(pictures, file_of(255))
    assert refused.value.code is Code.OVERLOADED


async def test_small_pictures_leave_room_for_more_of_them(slots: Slots) -> None:
    small, large = ImageSpec(8, 8), SPEC
    kept = [slots.new(str(n), small) for n in range(4 * FEWEST_SLOTS)]
    for shade, picture in enumerate(kept):
        pixels_of(picture, slots)[:] = shade % 256
        picture.holders = 1
        slots.keep(picture)
    with pytest.raises(ItemError):
        slots.new("one more", small)
    assert all((pixels_of(picture, slots) == shade % 256).all() for shade, picture in enumerate(kept))
    for picture in kept[8:16]:
        picture.holders = 0
    tall = [slots.new(name, large) for name in ("first", "second")]
    for picture in tall:
        pixels_of(picture, slots)[:] = 255
        slots.keep(picture)
    assert [pixels_of(kept[n], slots).max() for n in (7, 16)] == [7, 16]
    assert slots.get("12") is None
    assert slots.get("16") is kept[16]


async def test_memory_that_comes_back_in_pieces_is_whole_again() -> None:
    extents = Extents(30)
    starts = [extents.take(10) for _ in range(3)]
    assert (starts, extents.take(1)) == ([0, 10, 20], None)
    for start in (20, 0, 10):
        extents.give(start, 10)
    assert extents.take(30) == 0


async def test_one_who_leaves_does_not_stop_the_others_nor_hold_the_picture(
    pictures: Pictures, decoders: Counting
) -> None:
    decoders.gate = asyncio.Event()
    first, second = (asyncio.create_task(held(pictures, file_of(3))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    decoders.gate.set()
    assert (await second).holders == 1
    assert first.cancelled()


async def test_an_image_that_fails_leaves_its_slot_free(pictures: Pictures, slots: Slots) -> None:
    broken = ImageFile("x", b"no image", ImageHeader("png", 40, 40))
    for _ in range(FEWEST_SLOTS + 1):
        with pytest.raises(ItemError) as refused:
            await held(pictures, broken)
        assert refused.value.code is Code.IMAGE_INVALID


class TestProcesses:
    @pytest.fixture
    async def decoders(self, slots: Slots) -> AsyncIterator[Decoders]:
        decoders = Decoders(slots.memory, processes=1, threads=1, seconds=60)  # a decoder's start is among them
        await decoders.start()
        yield decoders
        await decoders.close()

    @staticmethod
    async def assert_decodes(decoders: Decoders, slots: Slots) -> None:
        picture = slots.new("good", SPEC)
        await decoders.decode(await decoders.turn(Lane.BULK), to_decode(file_of(9), picture))
        assert (pixels_of(picture, slots) == 9).all()

    async def test_pixels_arrive_in_their_slot_and_errors_as_errors(self, decoders: Decoders, slots: Slots) -> None:
        rubbish = ImageFile("x", b"rubbish", ImageHeader("jpeg", 40, 40))
        with pytest.raises(ItemError) as refused:
            await decoders.decode(await decoders.turn(Lane.BULK), to_decode(rubbish, slots.new("bad", SPEC)))
        assert refused.value.code is Code.IMAGE_INVALID
        await self.assert_decodes(decoders, slots)

    @pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
    async def test_a_decoder_that_dies_or_hangs_is_replaced(
        self, decoders: Decoders, slots: Slots, blow: signal.Signals, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        child = await decoders.turn(Lane.BULK)
        assert child
        os.kill(child.pid, blow)
        with monkeypatch.context() as impatient:
            impatient.setattr(decoders, "_seconds", 2)
            with pytest.raises(DecoderLost):
                await decoders.decode(child, to_decode(file_of(5), slots.new("lost", SPEC)))
        await self.assert_decodes(decoders, slots)

    async def test_an_image_gets_a_second_decoder(self, decoders: Decoders, slots: Slots) -> None:
        pictures = pictures_of(slots, decoders)
        (child,) = decoders.children
        os.kill(child.pid, signal.SIGKILL)
        assert (pixels_of(await held(pictures, file_of(5)), slots) == 5).all()

    async def test_who_leaves_in_the_middle_leaves_no_answer_for_the_next(
        self, decoders: Decoders, slots: Slots
    ) -> None:
        child = await decoders.turn(Lane.BULK)
        leaving = asyncio.create_task(decoders.decode(child, to_decode(file_of(200), slots.new("left", SPEC))))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await self.assert_decodes(decoders, slots)

    async def test_an_urgent_image_is_decoded_before_those_that_wait(self, decoders: Decoders, slots: Slots) -> None:
        pictures = pictures_of(slots, decoders)
        child = await decoders.turn(Lane.BULK)
        ended: list[int] = []

        async def ask(shade: int, lane: Lane) -> None:
            await held(pictures, file_of(shade), lane=lane)
            ended.append(shade)

        asking = [asyncio.create_task(ask(shade, Lane.BULK)) for shade in range(3)]
        await asyncio.sleep(0)
        asking.append(asyncio.create_task(ask(99, Lane.INTERACTIVE)))
        await asyncio.sleep(0)
        await decoders.decode(child, to_decode(file_of(5), slots.new("first", SPEC)))
        await asyncio.gather(*asking)
        assert ended[0] == 99

    async def test_an_image_whose_askers_left_is_not_decoded(self, decoders: Decoders, slots: Slots) -> None:
        pictures = pictures_of(slots, decoders)
        child = await decoders.turn(Lane.BULK)
        leaving = [asyncio.create_task(held(pictures, file_of(shade))) for shade in range(20)]
        await asyncio.sleep(0)
        assert pictures.room.all_taken == 20 * 1600
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await asyncio.sleep(0)
        assert pictures.room.all_taken == 0  # and the only decoder is still ours
        await decoders.decode(child, to_decode(file_of(5), slots.new("first", SPEC)))
        await self.assert_decodes(decoders, slots)

    async def test_a_decoder_that_cannot_be_started_is_started_later(
        self, decoders: Decoders, slots: Slots, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failures = [OSError(24, "no more files")]
        start = ChildProcess.start

        async def start_later(*how: Any) -> ChildProcess:
            if failures:
                raise failures.pop()
            return await start(*how)

        monkeypatch.setattr(ChildProcess, "start", start_later)
        monkeypatch.setattr(pool, "SPAWN_AGAIN_SECONDS", 0.01)
        (child,) = decoders.children
        os.kill(child.pid, signal.SIGKILL)
        assert (pixels_of(await held(pictures_of(slots, decoders), file_of(5)), slots) == 5).all()
        assert not failures


async def test_pixels_beyond_the_room_are_refused_and_some_room_is_for_the_urgent(
    slots: Slots, decoders: Counting
) -> None:
    pictures = pictures_of(slots, decoders, room=1600 * 3)
    decoders.gate = asyncio.Event()
    waiting = [asyncio.create_task(held(pictures, file_of(shade))) for shade in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ItemError) as refused:
        await held(pictures, file_of(2))
    assert refused.value.code is Code.OVERLOADED
    assert (refused.value.retry_after or 0) >= 1
    waiting.append(asyncio.create_task(held(pictures, file_of(3), lane=Lane.INTERACTIVE)))
    decoders.gate.set()
    await asyncio.gather(*waiting)
    assert set(pictures.room.taken.values()) == {0}


async def test_an_image_that_cannot_be_decoded_in_time_is_refused_at_the_door(slots: Slots, decoders: Counting) -> None:
    now = 0.0
    room, metrics = Room(10**9), Metrics(CollectorRegistry())
    pictures = Pictures(slots, SPEC, decoders, room, metrics, lambda: now)
    decoders.gate = asyncio.Event()
    slow = asyncio.create_task(pictures.hold(file_of(0), "", Lane.BULK, 60))
    await until(lambda: decoders.decoded == 1)
    now = 0.05
    decoders.gate.set()
    await slow
    with pytest.raises(ItemError) as refused:
        await pictures.hold(file_of(1), "", Lane.BULK, now + 0.02)
    assert refused.value.code is Code.DEADLINE
    assert decoders.decoded == 1
    await pictures.hold(file_of(1), "", Lane.BULK, now + 60)
