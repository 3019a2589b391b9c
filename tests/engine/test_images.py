import base64
import io
from collections.abc import Iterator

import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from medreward.encoding.image import ImageLimits, ImageSpec
from medreward.engine.images import Images, ImageStore
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics
from medreward.types import Base64Image, InlineImage, StoredImage, UrlImage

LIMITS = ImageLimits(bytes=100_000, pixels=1_000_000, side=2_000, min_side=4, aspect=10)
SPEC = ImageSpec(32, 32)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (40, 40), shade).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def images(registry: CollectorRegistry) -> Iterator[Images]:
    images = Images(ImageStore(10_000, 60), LIMITS, cache_bytes=2 * 32 * 32 * 3, threads=1, metrics=Metrics(registry))
    yield images
    images.close()


def hits(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("medreward_cache_hits_total", {"cache": "pixels"})


class TestStore:
    def test_what_was_put_is_found_by_its_content_until_deleted(self) -> None:
        store = ImageStore(100, 60)
        digest, new = store.put("a", b"image")
        assert new
        assert store.get("a", digest) == b"image"
        assert store.delete("a", digest)
        assert store.get("a", digest) is None
        assert not store.delete("a", digest)
        assert store.bytes == 0

    def test_the_same_bytes_again_are_not_new_and_take_no_more_room(self) -> None:
        store = ImageStore(100, 60)
        digest, _ = store.put("a", b"image")
        assert store.put("a", b"image") == (digest, False)
        assert store.bytes == 5

    def test_a_tenant_sees_only_its_own(self) -> None:
        store = ImageStore(100, 60)
        digest, _ = store.put("a", b"image")
        assert store.get("b", digest) is None
        assert store.put("b", b"image") == (digest, True)

    def test_images_expire_and_a_second_put_renews(self) -> None:
        clock = Clock()
        store = ImageStore(100, 60, clock)
        old, _ = store.put("a", b"old")
        renewed, _ = store.put("a", b"renewed")
        clock.now = 40
        store.put("a", b"renewed")
        clock.now = 60
        assert store.get("a", old) is None
        assert store.get("a", renewed) == b"renewed"
        assert store.bytes == len(b"renewed")

    def test_the_oldest_make_room(self) -> None:
        store = ImageStore(10, 60)
        first, second, third = (store.put("a", bytes([n] * 4))[0] for n in range(3))
        assert store.get("a", first) is None
        assert store.get("a", second)
        assert store.get("a", third)
        assert store.bytes == 8


async def test_an_image_is_decoded_once(images: Images, registry: CollectorRegistry) -> None:
    first = await images.decode(await images.open(InlineImage(png(7)), ""), SPEC)
    again = await images.decode(await images.open(InlineImage(png(7)), ""), SPEC)
    assert again.pixels is first.pixels
    assert hits(registry) == 1
    assert (first.pixels == 7).all()


async def test_an_evicted_image_is_decoded_again(images: Images, registry: CollectorRegistry) -> None:
    known = await images.open(InlineImage(png(1)), "")
    await images.decode(known, SPEC)
    known = await images.open(InlineImage(png(1)), "")
    for shade in (2, 3):
        await images.decode(await images.open(InlineImage(png(shade)), ""), SPEC)
    assert ((await images.decode(known, SPEC)).pixels == 1).all()
    assert hits(registry) == 0


async def test_every_source_leads_to_the_same_image(images: Images) -> None:
    digest, _, header = await images.put("", png(9))
    sources = (InlineImage(png(9)), Base64Image(base64.b64encode(png(9)).decode()), StoredImage(digest))
    assert {(await images.open(source, "")).digest for source in sources} == {digest}
    assert (header.width, header.height) == (40, 40)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (StoredImage("0" * 64), Code.IMAGE_UNKNOWN),
        (UrlImage("https://example.org/a.png"), Code.IMAGE_URL_REFUSED),
        (Base64Image("not base64!"), Code.IMAGE_INVALID),
        (Base64Image("é"), Code.IMAGE_INVALID),
        (Base64Image("A" * 140_000), Code.IMAGE_TOO_LARGE),
        (InlineImage(b""), Code.IMAGE_INVALID),
    ],
)
async def test_what_cannot_be_opened_says_why(images: Images, source: StoredImage, code: Code) -> None:
    with pytest.raises(ItemError) as refused:
        await images.open(source, "")
    assert (refused.value.code, refused.value.field) == (code, "image")
