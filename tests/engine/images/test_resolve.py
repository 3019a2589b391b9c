import base64
import hashlib
import io

import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from medreward.encoding.image import ImageLimits
from medreward.engine.images.fetch import Allowance
from medreward.engine.images.resolve import Images
from medreward.engine.images.store import ImageStore
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics
from medreward.types import Base64Image, InlineImage, StoredImage, UrlImage

LIMITS = ImageLimits(bytes=100_000, pixels=1_000_000, side=2_000, min_side=4, aspect=10)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (40, 40), shade).save(buffer, "PNG")
    return buffer.getvalue()


def noise() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), 90).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def images() -> Images:
    return Images(ImageStore(10_000, 60), LIMITS, Metrics(CollectorRegistry()))


def put(store: ImageStore, tenant: str, data: bytes) -> tuple[str, bool]:
    digest = hashlib.sha256(data).hexdigest()
    return digest, store.put(tenant, digest, data)


class TestStore:
    def test_what_was_put_is_found_by_its_content_until_deleted(self) -> None:
        store = ImageStore(100, 60)
        digest, new = put(store, "a", b"image")
        assert new
        assert store.get("a", digest) == b"image"
        assert store.delete("a", digest)
        assert store.get("a", digest) is None
        assert not store.delete("a", digest)
        assert store.bytes == 0

    def test_the_same_bytes_again_are_not_new_and_take_no_more_room(self) -> None:
        store = ImageStore(100, 60)
        digest, _ = put(store, "a", b"image")
        assert put(store, "a", b"image") == (digest, False)
        assert store.bytes == 5

    def test_a_tenant_sees_only_its_own(self) -> None:
        store = ImageStore(100, 60)
        digest, _ = put(store, "a", b"image")
        assert store.get("b", digest) is None
        assert put(store, "b", b"image") == (digest, True)

    def test_a_tenant_that_fills_the_store_drops_its_own(self) -> None:
        store = ImageStore(90, 60)
        small = [put(store, "small", bytes([n] * 10))[0] for n in range(3)]
        large = [put(store, "large", bytes([100 + n] * 10))[0] for n in range(50)]
        assert all(store.get("small", digest) for digest in small)
        assert [digest for digest in large if store.get("large", digest)] == large[-6:]
        assert store.bytes == 90

    def test_whoever_holds_most_makes_room_for_a_newcomer(self) -> None:
        store = ImageStore(90, 60)
        first = [put(store, "first", bytes([n] * 10))[0] for n in range(9)]
        second = [put(store, "second", bytes([100 + n] * 10))[0] for n in range(9)]
        assert 4 <= sum(store.get("first", digest) is not None for digest in first) <= 5
        assert 4 <= sum(store.get("second", digest) is not None for digest in second) <= 5

    def test_images_expire_and_a_second_put_renews(self) -> None:
        clock = Clock()
        store = ImageStore(100, 60, clock)
        old, _ = put(store, "a", b"old")
        renewed, _ = put(store, "a", b"renewed")
        clock.now = 40
        put(store, "a", b"renewed")
        clock.now = 60
        assert store.get("a", old) is None
        assert store.get("a", renewed) == b"renewed"
        assert store.bytes == len(b"renewed")

    def test_the_oldest_make_room(self) -> None:
        store = ImageStore(10, 60)
        first, second, third = (put(store, "a", bytes([n] * 4))[0] for n in range(3))
        assert store.get("a", first) is None
        assert store.get("a", second)
        assert store.get("a", third)
        assert store.bytes == 8


async def test_every_source_leads_to_the_same_image(images: Images) -> None:
    _, stored = await images.put("", png(9))
    digest, header = stored.digest, stored.header
    sources = (InlineImage(png(9)), Base64Image(base64.b64encode(png(9)).decode()), StoredImage(digest))
    assert {(await images.open(source, "", Allowance(10_000))).digest for source in sources} == {digest}
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
        await images.open(source, "", Allowance(10_000))
    assert (refused.value.code, refused.value.field) == (code, "image")


async def test_an_image_that_would_fill_the_whole_store_is_refused_and_evicts_nothing() -> None:
    images = Images(ImageStore(200, 60), LIMITS, Metrics(CollectorRegistry()))
    small, _ = put(images.store, "", b"small")
    with pytest.raises(ItemError) as refused:
        await images.put("", noise())
    assert refused.value.code is Code.IMAGE_TOO_LARGE
    assert images.store.get("", small)
