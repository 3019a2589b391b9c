"""Pictures in shared slots: decoded once, held while used, evicted in order; decoders that die take nobody along."""

import asyncio
import hashlib
import io
import os
import signal
from collections.abc import AsyncIterator

import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from medreward.encoding.image import ImageHeader, ImageSpec
from medreward.engine.images import ImageFile
from medreward.engine.pixels import FEWEST_SLOTS, DecoderLost, Decoders, Picture, Pictures, Slots
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics

SPEC = ImageSpec(16, 16)
SHAPE = (16, 16, 3)


def file_of(shade: int) -> ImageFile:
    buffer = io.BytesIO()
    Image.new("L", (40, 40), shade).save(buffer, "PNG")
    data = buffer.getvalue()
    return ImageFile(hashlib.sha256(data).hexdigest(), data, ImageHeader("png", 40, 40))


class Counting(Decoders):
    """Threads that decode; counts, and waits where a test says so."""

    decoded = 0
    gate: asyncio.Event | None = None

    async def decode(self, data: bytes, header: ImageHeader, picture: Picture) -> None:
        self.decoded += 1
        if self.gate:
            await self.gate.wait()
        await super().decode(data, header, picture)


@pytest.fixture
async def slots() -> AsyncIterator[Slots]:
    slots = Slots(SHAPE, 0)
    yield slots
    slots.close()


@pytest.fixture
async def decoders(slots: Slots) -> AsyncIterator[Counting]:
    decoders = Counting(slots, SPEC, processes=0, threads=2, seconds=5)
    yield decoders
    await decoders.close()


@pytest.fixture
def pictures(slots: Slots, decoders: Counting) -> Pictures:
    return Pictures(slots, decoders, Metrics(CollectorRegistry()))


async def test_an_image_is_decoded_once_for_all_who_ask(pictures: Pictures, decoders: Counting) -> None:
    together = await asyncio.gather(*(pictures.held(file_of(7), "") for _ in range(5)))
    later = await pictures.held(file_of(7), "")
    assert decoders.decoded == 1
    assert {id(picture) for picture in (*together, later)} == {id(later)}
    assert (later.pixels == 7).all()
    assert later.holders == 6


async def test_a_tenant_does_not_profit_from_what_another_sent(pictures: Pictures, decoders: Counting) -> None:
    await pictures.held(file_of(7), "a")
    await pictures.held(file_of(7), "b")
    assert decoders.decoded == 2


async def test_what_is_held_stays_and_the_least_recently_used_goes(pictures: Pictures, decoders: Counting) -> None:
    held = await pictures.held(file_of(0), "")
    for shade in range(1, FEWEST_SLOTS + 20):
        (await pictures.held(file_of(shade), "")).holders -= 1
    assert (held.pixels == 0).all()
    before = decoders.decoded
    await pictures.held(file_of(0), "")
    await pictures.held(file_of(FEWEST_SLOTS + 19), "")
    assert decoders.decoded == before
    await pictures.held(file_of(1), "")
    assert decoders.decoded == before + 1


async def test_more_images_at_once_than_slots_is_overload(pictures: Pictures) -> None:
    for shade in range(FEWEST_SLOTS):
        await pictures.held(file_of(shade), "")
    with pytest.raises(ItemError) as refused:
        await pictures.held(file_of(255), "")
    assert refused.value.code is Code.OVERLOADED


async def test_one_who_leaves_does_not_stop_the_others_nor_hold_the_picture(
    pictures: Pictures, decoders: Counting
) -> None:
    decoders.gate = asyncio.Event()
    first, second = (asyncio.create_task(pictures.held(file_of(3), "")) for _ in range(2))
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
            await pictures.held(broken, "")
        assert refused.value.code is Code.IMAGE_INVALID


class TestProcesses:
    @pytest.fixture
    async def decoders(self, slots: Slots) -> AsyncIterator[Decoders]:
        decoders = Decoders(slots, SPEC, processes=1, threads=1, seconds=2)
        await decoders.start()
        yield decoders
        await decoders.close()

    @staticmethod
    async def assert_decodes(decoders: Decoders, slots: Slots) -> None:
        picture = slots.new("good")
        file = file_of(9)
        await decoders.decode(file.data, file.header, picture)
        assert (picture.pixels == 9).all()

    async def test_pixels_arrive_in_their_slot_and_errors_as_errors(self, decoders: Decoders, slots: Slots) -> None:
        with pytest.raises(ItemError) as refused:
            await decoders.decode(b"rubbish", ImageHeader("jpeg", 40, 40), slots.new("bad"))
        assert refused.value.code is Code.IMAGE_INVALID
        await self.assert_decodes(decoders, slots)

    @pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
    async def test_a_decoder_that_dies_or_hangs_is_replaced(
        self, decoders: Decoders, slots: Slots, blow: signal.Signals
    ) -> None:
        (child,) = decoders.children
        os.kill(child.pid, blow)
        file = file_of(5)
        with pytest.raises(DecoderLost):
            await decoders.decode(file.data, file.header, slots.new("lost"))
        await self.assert_decodes(decoders, slots)

    async def test_an_image_gets_a_second_decoder(self, decoders: Decoders, slots: Slots) -> None:
        pictures = Pictures(slots, decoders, Metrics(CollectorRegistry()))
        (child,) = decoders.children
        os.kill(child.pid, signal.SIGKILL)
        assert ((await pictures.held(file_of(5), "")).pixels == 5).all()

    async def test_who_leaves_in_the_middle_leaves_no_answer_for_the_next(
        self, decoders: Decoders, slots: Slots
    ) -> None:
        file = file_of(200)
        leaving = asyncio.create_task(decoders.decode(file.data, file.header, slots.new("left")))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await self.assert_decodes(decoders, slots)
