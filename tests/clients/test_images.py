"""What a caller may hold as an image, and that its pixels arrive as they are."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medreward.clients import AsyncClient
from medreward.clients.images import File, Unreadable, image_bytes, load
from medreward.types import UrlImage
from pictures import cut_short, dicom, pixels, png
from serving import Server


def sent(image: Any) -> Image.Image:
    """What a server sees."""
    data = image_bytes(image)
    assert data is not None
    return Image.open(BytesIO(data))


def test_bytes_and_files_travel_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(dicom())
    routes: list[Any] = [dicom(), bytearray(dicom()), memoryview(dicom()), path, str(path)]
    routes += [{"bytes": dicom(), "path": None}, {"bytes": None, "path": str(path)}, {"path": path}]
    expected = File(dicom(), hashlib.sha256(dicom()).hexdigest())
    assert [load(route) for route in routes] == [expected] * len(routes)


def test_no_image_and_urls() -> None:
    assert load(None) is None
    assert load("https://example.org/x.png") == UrlImage("https://example.org/x.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_picture_of_a_png_mode_loses_nothing(mode: str) -> None:
    picture = Image.fromarray(pixels()).convert("L" if mode == "I;16" else "RGB").convert(mode)
    arrived = sent(picture)
    assert arrived.mode == mode
    assert np.array_equal(np.asarray(arrived.convert("RGBA")), np.asarray(picture.convert("RGBA")))


@pytest.mark.parametrize("mode", ["PA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_a_picture_of_another_mode_is_converted(mode: str) -> None:
    picture = Image.fromarray(pixels()).convert("P" if mode == "PA" else "RGB").convert(mode)
    assert np.array_equal(np.asarray(sent(picture).convert("RGB")), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_picture_without_an_agreed_range_is_no_image(mode: str) -> None:
    with pytest.raises(TypeError, match="no agreed range"):
        load(Image.new(mode, (8, 8)))


def test_a_picture_is_sent_as_displayed() -> None:
    picture = Image.fromarray(pixels())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    file = BytesIO()
    picture.save(file, "PNG", exif=exif)
    arrived = sent(Image.open(file))
    assert arrived.getexif().get(0x0112, 1) == 1
    assert np.array_equal(np.asarray(arrived), np.rot90(pixels(), 3))


@pytest.mark.parametrize(
    "array",
    [
        pixels(),
        pixels()[..., 0],
        pixels()[..., :1],
        np.dstack([pixels(), pixels(1)[..., 0]]),
        pixels()[::2, ::-1],
        pixels()[..., 0].astype(np.uint16) * 257,
        (pixels()[..., 0].astype(np.uint16) * 257).astype(">u2"),
    ],
    ids=["rgb", "grey", "one channel", "rgba", "strided", "16 bits", "16 bits, big-endian"],
)
def test_an_array_arrives_value_by_value(array: np.ndarray[Any, Any]) -> None:
    assert np.array_equal(np.asarray(sent(array)), array.squeeze())


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8)),
        np.zeros((8, 8), np.int16),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros(8, np.uint8),
    ],
    ids=["float", "signed", "channels first", "16-bit colour", "a line"],
)
def test_an_array_whose_meaning_is_not_clear_is_no_image(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(TypeError, match="image array"):
        load(array)


@pytest.mark.parametrize("image", [3, [b"x"], object()])
def test_what_is_no_image_at_all(image: Any) -> None:
    with pytest.raises(TypeError, match="an image cannot be"):
        load(image)


def test_what_cannot_be_read_is_a_value(tmp_path: Path) -> None:
    images: list[Any] = [tmp_path / "none", {"path": "none"}, {"bytes": None, "path": None}, Image.open(cut())]
    assert all(isinstance(load(image), Unreadable) for image in images)


def cut() -> BytesIO:
    return BytesIO(cut_short(png(0, 300, 300)))


async def test_the_same_pixels_have_the_same_scores_by_every_route(tiny: Server, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png())
    routes: list[Any] = [png(), path, {"bytes": png()}, Image.open(path), pixels(), Image.fromarray(pixels())]
    async with AsyncClient(f"http://127.0.0.1:{tiny.port}") as client:
        scores = await client.score_many([(route, "What is seen?", "A nodule.") for route in routes])
    assert scores[0].reward is not None
    assert len({score.reward for score in scores}) == 1
