import base64
import hashlib
import logging
import struct
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filereader import dcmread

from medreward.encoding.image import ImageLimits, Pixels, decode, probe
from medreward.encoding.sizes import ImageHeader, ImageSpec, OwnSize
from medreward.errors import Code, ItemError

LIMITS: Final = ImageLimits(bytes=1_000_000, pixels=1_000_000, side=4000, min_side=8, aspect=32)
AS_IT_IS: Final = ImageSpec(16, 16, "stretch")
SMALL: Final = ImageSpec(12, 10)

RANDOM: Final = np.random.default_rng(7)
GREY: Final[Pixels] = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR: Final[Pixels] = RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)
ALPHA: Final[Pixels] = np.repeat(np.array([0, 85, 170, 255], np.uint8), 64).reshape(16, 16)

# 16 x 16, quality 50, written once: an encoder's bytes change with its version, a decoder's pixels should not.
JPEG_GREY: Final = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeX"
    "BkeFxlZ2P/wAALCAAQABABAREA/8QAFQABAQAAAAAAAAAAAAAAAAAABgD/xAAXEAEAAwAAAAAAAAAAAAAAAAAEACEx/9oACAEBAAA/ADYh5UQC"
    "HlSEPKiAQ8qf/9k="
)
JPEG_COLOUR: Final = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeX"
    "BkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/wAARCAAQ"
    "ABADASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAgP/xAAXEAADAQAAAAAAAAAAAAAAAAAAAQID/8QAFAEBAAAAAAAAAAAAAAAAAAAAAv"
    "/EABkRAAIDAQAAAAAAAAAAAAAAAAAEAgUxIf/aAAwDAQACEQMRAD8As7C7IOwvQNZDAJoZw//Z"
)
JPEG_CMYK: Final = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwAQCwwODAoQDg0OEhEQExgoGhgWFhgxIyUdKDozPTw5Mzg3QEhcTkBEV0U3OFBtUVdfYmdoZz5NcXlwZH"
    "hcZWdj/8AAFAgAEAAQBEMRAE0RAFkRAEsRAP/EABcAAQEBAQAAAAAAAAAAAAAAAAYABwX/xAAbEAACAgMBAAAAAAAAAAAAAAAABCExBRNCYf/a"
    "AA4EQwBNAFkASwAAPwBI65chtJOoEmb6HO70PuuXIgSTqDPs30W70nXLkkk6g0HN9HP3eh51y5ECSdQZ9m+i3en/2Q=="
)
JPEG_YCCK: Final = JPEG_CMYK.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2")


def read(data: bytes, spec: ImageSpec = AS_IT_IS) -> Pixels:
    return decode(data, probe(data, LIMITS), spec)


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> Code:
    with pytest.raises(ItemError) as refused:
        decode(data, probe(data, limits), AS_IT_IS)
    assert refused.value.field == "image"
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return refused.value.code


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def grey_as_rgb(grey: NDArray[Any]) -> Pixels:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(pixels: NDArray[Any], **options: Any) -> bytes:
    return saved(Image.fromarray(pixels), "PNG", **options)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def rgb_png(width: int, height: int, depth: int, data: bytes, extra: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", zlib.compress(data)) + png_chunk(b"IEND", b"")


def deep_rgb_png(pixels: NDArray[np.uint16], extra: bytes = b"") -> bytes:
    height, width, _ = pixels.shape
    return rgb_png(width, height, 16, b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels), extra)


def png_with(chunk: bytes) -> bytes:
    plain = png(COLOUR)
    return plain[:33] + chunk + plain[33:]  # after the signature and IHDR


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def dicom(pixels: NDArray[Any], syntax: str = uid.ExplicitVRLittleEndian, **tags: Any) -> bytes:
    with warnings.catch_warnings(action="ignore"):  # what is odd in these files is meant to be
        return written_dicom(pixels, uid.UID(syntax), tags)


def written_dicom(pixels: NDArray[Any], syntax: uid.UID, tags: dict[str, Any]) -> bytes:
    dataset = Dataset()
    dataset.PatientName = "SECRET^NAME"
    dataset.PatientBirthDate = "not a date SECRET"
    frame = pixels[0] if "NumberOfFrames" in tags and pixels.ndim > 2 else pixels
    dataset.Rows, dataset.Columns = frame.shape[:2]
    dataset.SamplesPerPixel = 3 if frame.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if frame.ndim == 3 else "MONOCHROME2"
    if frame.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = uid.UID("1.2.3")
    dataset.file_meta.MediaStorageSOPInstanceUID = uid.UID("1.2.3.4")
    dataset.file_meta.TransferSyntaxUID = syntax
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def run_length_encoded(data: bytes) -> bytes:
    with warnings.catch_warnings(action="ignore"):
        dataset = dcmread(BytesIO(data))
        dataset.compress(uid.RLELossless, generate_instance_uid=False)
        file = BytesIO()
        dataset.save_as(file)
    return file.getvalue()


def palette_png(**options: Any) -> bytes:
    image = Image.fromarray(GREY // 64, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    return saved(image, "PNG", **options)


def lut(values: NDArray[Any]) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(values), 0, 16]
    item.LUTData = values.astype("<u2").tobytes()
    return item


def colour_lut() -> dict[str, Any]:
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, ramp in {"Red": GREY.ravel(), "Green": 255 - GREY.ravel(), "Blue": np.full(256, 7)}.items():
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = (ramp * np.uint16(257)).astype("<u2").tobytes()
    return tags


WINDOW: Final[dict[str, Any]] = {
    "RescaleSlope": 1,
    "RescaleIntercept": -1024,
    "WindowCenter": [40, 400],
    "WindowWidth": [400, 40],
}
HOUNSFIELD: Final = (np.linspace(-160, 240, 256).reshape(16, 16) + 1024).round().astype(np.int16)
FILES: Final[dict[str, Callable[[], bytes]]] = {
    "jpeg grey": lambda: JPEG_GREY,
    "jpeg colour": lambda: JPEG_COLOUR,
    "jpeg cmyk": lambda: JPEG_CMYK,
    "jpeg ycck": lambda: JPEG_YCCK,
    "png grey": lambda: png(GREY),
    "png colour": lambda: png(COLOUR),
    "png 16 bit": lambda: png(GREY * np.uint16(257)),
    "png 1 bit": lambda: saved(Image.fromarray(GREY).convert("1", dither=Image.Dither.NONE), "PNG"),
    "png palette": palette_png,
    "png transparent palette": lambda: palette_png(transparency=b"\x00\x80\xff\xff"),
    "png grey alpha": lambda: png(np.dstack([GREY, ALPHA])),
    "png colour alpha": lambda: png(np.dstack([COLOUR, ALPHA])),
    "png sideways": lambda: png(COLOUR[:9], exif=exif(6)),
    "webp": lambda: saved(Image.fromarray(COLOUR), "WEBP", lossless=True),
    "webp alpha": lambda: saved(Image.fromarray(np.dstack([COLOUR, ALPHA])), "WEBP", lossless=True, exact=True),
    "dicom grey": lambda: dicom(GREY),
    "dicom window": lambda: dicom(HOUNSFIELD, **WINDOW),
    "dicom sigmoid": lambda: dicom(HOUNSFIELD, VOILUTFunction="SIGMOID", **WINDOW),
    "dicom palette": lambda: dicom(GREY, **colour_lut()),
    "dicom rgb": lambda: dicom(COLOUR),
    "dicom ybr": lambda: dicom(COLOUR, PhotometricInterpretation="YBR_FULL"),
    "dicom jpeg": lambda: dicom(GREY, uid.JPEGBaseline8Bit, PixelData=encapsulate([JPEG_GREY])),
}
GOLDEN: Final = {
    "jpeg grey": "58ef5caffd1c8447",
    "jpeg colour": "8c5589d201c3af8c",
    "jpeg cmyk": "0c939f662562d8d7",
    "jpeg ycck": "0e7f0aedb49989a4",
    "png grey": "7bc8d5256684fd70",
    "png colour": "ac6e8fef07162332",
    "png 16 bit": "7bc8d5256684fd70",
    "png 1 bit": "1647c032ba9662b2",
    "png palette": "46f5ed9b4b8138a0",
    "png transparent palette": "f25f61095ec26d44",
    "png grey alpha": "ad585c65f42a07c0",
    "png colour alpha": "aa42b43ebd4cf9bc",
    "png sideways": "b4a900b31ef7caa2",
    "webp": "ac6e8fef07162332",
    "webp alpha": "aa42b43ebd4cf9bc",
    "dicom grey": "7bc8d5256684fd70",
    "dicom window": "567d512772d1f832",
    "dicom sigmoid": "7b541960631032d2",
    "dicom palette": "b6b21bb854c0a28e",
    "dicom rgb": "ac6e8fef07162332",
    "dicom ybr": "cfc2384b0dba2a5b",
    "dicom jpeg": "b2dbe04da8f1490c",
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_of_every_kind_stay_the_same(name: str) -> None:
    # Rows B6 and B7. A change here changes scores: raise `preprocessing` in the manifest with it.
    pixels = read(FILES[name](), SMALL)
    assert pixels.shape == (10, 12, 3)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == GOLDEN[name]


# What a user sees, kind by kind


def test_lossless_pixels_arrive_unchanged() -> None:
    for data in (png(COLOUR), FILES["webp"](), dicom(COLOUR), run_length_encoded(dicom(COLOUR))):
        assert np.array_equal(read(data), COLOUR)
    for data in (png(GREY), dicom(GREY), dicom(GREY, uid.ImplicitVRLittleEndian), run_length_encoded(dicom(GREY))):
        assert np.array_equal(read(data), grey_as_rgb(GREY))


def test_16_bit_grey_keeps_its_high_byte_and_is_neither_clipped_nor_stretched() -> None:
    assert np.array_equal(read(png(GREY * np.uint16(257))), grey_as_rgb(GREY))
    assert read(png(np.full((16, 16), 0x1234, np.uint16))).max() == 0x12


def test_16_bit_colour_keeps_its_high_byte_and_ignores_a_colour_key() -> None:
    deep = COLOUR * np.uint16(256) + np.uint16(99)
    assert np.array_equal(read(deep_rgb_png(deep)), COLOUR)
    key = struct.pack(">HHH", *COLOUR[3, 4].tolist())
    assert np.array_equal(read(deep_rgb_png(deep, png_chunk(b"tRNS", key))), COLOUR)


def test_transparency_shows_white() -> None:
    expected = COLOUR * (ALPHA[..., None] / 255) + 255 * (1 - ALPHA[..., None] / 255)
    for name in ("png colour alpha", "webp alpha"):
        assert np.abs(read(FILES[name]()) - expected).max() <= 1
    assert (read(palette_png(transparency=b"\x00\xff\xff\xff"))[0, 0] == 255).all()
    assert (read(png(COLOUR, transparency=tuple(COLOUR[3, 4].tolist())))[3, 4] == 255).all()


def test_palette_and_1_bit() -> None:
    assert [tuple(pixel) for pixel in read(palette_png())[::4, 0].tolist()] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (9, 9, 9),
    ]
    assert np.array_equal(read(FILES["png 1 bit"]()), grey_as_rgb(np.where(GREY > 127, 255, 0)))


def test_cmyk_is_read_as_adobe_writes_it() -> None:
    white = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert (read(saved(white, "JPEG")) == 255).all()
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(read(saved(red, "JPEG")).astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("spec", [SMALL, ImageSpec(7, 16, "stretch"), ImageSpec(40, 30), ImageSpec(14, 28, "own")])
def test_all_eight_orientations_give_the_upright_pixels(kind: str, spec: ImageSpec) -> None:
    upright = Image.fromarray(COLOUR[:11])  # row B8
    flips = Image.Transpose
    stored = {
        1: upright,
        2: upright.transpose(flips.FLIP_LEFT_RIGHT),
        3: upright.transpose(flips.ROTATE_180),
        4: upright.transpose(flips.FLIP_TOP_BOTTOM),
        5: upright.transpose(flips.TRANSPOSE),
        6: upright.transpose(flips.ROTATE_90),
        7: upright.transpose(flips.TRANSVERSE),
        8: upright.transpose(flips.ROTATE_270),
    }
    expected = read(saved(upright, kind, lossless=True), spec)
    for orientation, image in stored.items():
        data = saved(image, kind, lossless=True, exif=exif(orientation))
        assert probe(data, LIMITS) == ImageHeader("png" if kind == "PNG" else "webp", 16, 11)
        assert np.array_equal(read(data, spec), expected), orientation


def test_a_sideways_jpeg_is_shrunk_as_an_upright_one() -> None:
    ramp = np.tile(np.linspace(0, 255, 640).astype(np.uint8), (320, 1))
    sideways = saved(Image.fromarray(ramp).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif(6), quality=95)
    spec = ImageSpec(64, 32)
    assert probe(sideways, LIMITS) == ImageHeader("jpeg", 640, 320)
    assert np.abs(read(sideways, spec).astype(int) - read(png(ramp), spec)).max() <= 4


@pytest.mark.parametrize("tags", [b"", b"Exif\0\0garbage", exif(9).tobytes(), exif(0).tobytes()])
def test_broken_exif_means_upright(tags: bytes) -> None:
    assert np.array_equal(read(png(COLOUR, exif=tags)), COLOUR)


def test_a_colour_profile_changes_nothing() -> None:
    assert np.array_equal(read(png(COLOUR, icc_profile=b"not even a profile")), COLOUR)


def test_pad_centres_on_black_and_keeps_the_aspect() -> None:
    wide = png(np.full((10, 40, 3), 200, np.uint8))
    padded = read(wide, ImageSpec(20, 20))
    assert (padded[:7] == 0).all()
    assert (padded[7:12] == 200).all()
    assert (padded[12:] == 0).all()
    assert (read(wide, ImageSpec(20, 20, "stretch")) == 200).all()
    assert read(png(np.full((8, 256), 9, np.uint8)), ImageSpec(4, 4)).max() == 9


def test_a_large_jpeg_looks_as_if_decoded_whole() -> None:
    scene = Image.fromarray(RANDOM.integers(0, 256, (20, 25, 3), dtype=np.uint8)).resize((1000, 800))
    data = saved(scene, "JPEG", quality=95)
    whole = np.asarray(Image.open(BytesIO(data)).resize((50, 40), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read(data, ImageSpec(50, 40)) - whole).mean() < 1


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_at_its_own_size_is_decoded_whole(orientation: int) -> None:
    scene = Image.fromarray(RANDOM.integers(0, 256, (640, 800, 3), dtype=np.uint8))
    data = saved(scene, "JPEG", exif=exif(orientation))
    upright = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    header = probe(data, LIMITS)
    spec = OwnSize(min_pixels=784, max_pixels=28 * 28 * 20, multiple=28).of(header.width, header.height)
    assert {spec.width, spec.height} == {140, 112}
    expected = upright.resize((spec.width, spec.height), Image.Resampling.BICUBIC)
    assert np.array_equal(decode(data, header, spec), np.asarray(expected))


def test_pixels_are_owned_contiguous_and_the_same_in_every_thread() -> None:
    files = [make() for make in FILES.values()]
    alone = [read(data) for data in files]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(read, files * 4))
    for index, pixels in enumerate(together):
        assert pixels.flags.c_contiguous
        assert pixels.flags.owndata
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, alone[index % len(files)])


# DICOM


def test_the_first_window_is_applied_after_the_rescale() -> None:
    shades = read(dicom(HOUNSFIELD, **WINDOW))[..., 0].ravel().astype(int)
    units = HOUNSFIELD.ravel() - 1024.0
    assert np.abs(shades - np.clip((units - 39.5) / 399 + 0.5, 0, 1) * 255).max() <= 0.5
    outside = read(dicom(np.where(GREY > 127, 3000, -3000).astype(np.int16), **WINDOW))
    assert set(np.unique(outside)) == {0, 255}


def test_a_frame_without_a_window_goes_from_black_to_white() -> None:
    stored = (GREY.astype(np.int16) * 100) - 12_800
    assert np.array_equal(read(dicom(stored)), grey_as_rgb(GREY))
    assert np.array_equal(read(dicom(stored, RescaleSlope=-1, RescaleIntercept=0)), grey_as_rgb(255 - GREY))
    assert (read(dicom(np.full((16, 16), 77, np.uint16))) == 0).all()


def test_12_stored_bits_without_window() -> None:
    assert np.array_equal(read(dicom(GREY * np.uint16(16), BitsStored=12, HighBit=11)), grey_as_rgb(GREY))


def test_voi_lut_monochrome1_and_palette() -> None:
    down = grey_as_rgb(255 - GREY)
    assert np.array_equal(read(dicom(GREY, PhotometricInterpretation="MONOCHROME1")), down)
    assert np.array_equal(
        read(dicom(GREY, VOILUTSequence=[lut(np.arange(255, -1, -1) * 257)], WindowCenter=9, WindowWidth=9)), down
    )
    palette = read(dicom(GREY, **colour_lut()))
    assert np.array_equal(palette, np.dstack([GREY, 255 - GREY, np.full_like(GREY, 7)]))


def test_the_middle_frame_is_the_one_scored() -> None:
    blank = np.zeros_like(GREY)
    series = dicom(np.stack([blank, GREY, blank]), NumberOfFrames=3)
    assert np.array_equal(read(series), grey_as_rgb(GREY))
    assert np.array_equal(read(run_length_encoded(series)), grey_as_rgb(GREY))


def test_compressed_dicom() -> None:
    frames = {"PixelData": encapsulate([JPEG_GREY]), "WindowCenter": 128, "WindowWidth": 256}
    assert np.array_equal(read(dicom(GREY, uid.JPEGBaseline8Bit, **frames)), read(JPEG_GREY))
    frames = {"PixelData": encapsulate([JPEG_COLOUR]), "PhotometricInterpretation": "YBR_FULL_422"}
    colour = read(dicom(COLOUR, uid.JPEGBaseline8Bit, **frames)).astype(int)
    assert np.abs(colour - read(JPEG_COLOUR)).max() <= 2
    lossless = encapsulate([saved(Image.fromarray(COLOUR), "JPEG2000", irreversible=False)])
    data = dicom(COLOUR, uid.JPEG2000Lossless, PixelData=lossless, PhotometricInterpretation="YBR_RCT")
    assert np.array_equal(read(data), COLOUR)
    signed = (GREY.astype(np.int16) * 100) - 12_800
    assert np.array_equal(read(run_length_encoded(dicom(signed))), read(dicom(signed)))


@pytest.mark.parametrize(
    ("code", "data"),
    [
        (Code.IMAGE_KIND, dicom(GREY, uid.DeflatedExplicitVRLittleEndian)),
        (Code.IMAGE_KIND, dicom(GREY, uid.JPEGLSLossless, PixelData=encapsulate([b"12"]))),
        (Code.IMAGE_KIND, dicom(GREY.astype(np.uint32))),
        (Code.IMAGE_KIND, dicom(GREY, PhotometricInterpretation="CMYK")),
        (Code.IMAGE_INVALID, dicom(GREY)[:-40]),
        (Code.IMAGE_INVALID, dicom(GREY, NumberOfFrames=3)),
        (Code.IMAGE_INVALID, dicom(GREY).replace(b"\xe0\x7f\x10\x00", b"\xe0\x7f\x12\x00")),
        (Code.IMAGE_INVALID, dicom(GREY, WindowCenter=1, WindowWidth=0)),
        (Code.IMAGE_INVALID, dicom(GREY, RescaleSlope=1e308, RescaleIntercept=1e308)),
        (Code.IMAGE_INVALID, dicom(GREY)[:-300]),
        (Code.IMAGE_TOO_LARGE, dicom(GREY, Rows=60_000, Columns=60_000)),
        (Code.IMAGE_TOO_SMALL, dicom(GREY, Rows=0)),
    ],
)
def test_dicom_that_is_refused(code: Code, data: bytes) -> None:
    assert refusal(data) is code


def test_a_small_dicom_header_cannot_hide_a_large_picture() -> None:
    large = saved(Image.new("L", (2000, 2000)), "JPEG")
    data = dicom(GREY, uid.JPEGBaseline8Bit, PixelData=encapsulate([large]))
    with memory_below(1_000_000):  # its pixels are 4 MB
        assert refusal(data) is Code.IMAGE_INVALID


def test_a_dicom_of_tiny_elements_or_deep_nesting_ends_soon() -> None:
    plain = dicom(GREY)
    start = plain.index(b"\x10\x00\x10\x00PN")
    element = struct.pack("<HH2sH", 8, 0x60, b"CS", 0)
    sequence = struct.pack("<HH2sHLHHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    limits = replace(LIMITS, bytes=20_000_000)
    for filler in (element * 2_000_000, sequence * 100_000):
        begun = time.process_time()
        assert refusal(plain[:start] + filler + plain[start:], limits) is Code.IMAGE_INVALID
        assert time.process_time() - begun < 30


def test_nothing_of_a_file_reaches_logs_or_warnings(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    odd = dicom(GREY, SpecificCharacterSet="SECRET", WindowCenter="1", WindowWidth="3", PixelData=GREY.tobytes() * 2)
    tags = exif(6)
    tags[0x010E] = "SECRET"
    files = [
        odd,
        odd[:-300],
        png(COLOUR, exif=tags, icc_profile=b"SECRET"),
        saved(Image.new("L", (16, 16)), "JPEG", exif=tags),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in files:
            pixels_or_item_error(data)
    assert caught == []
    assert "SECRET" not in caplog.text
    assert capfd.readouterr() == ("", "")


# Limits, from the header


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        (Code.IMAGE_TOO_LARGE, replace(LIMITS, bytes=60)),
        (Code.IMAGE_TOO_LARGE, replace(LIMITS, pixels=20 * 40 - 1)),
        (Code.IMAGE_TOO_LARGE, replace(LIMITS, side=39)),
        (Code.IMAGE_TOO_SMALL, replace(LIMITS, min_side=21)),
        (Code.IMAGE_TOO_SMALL, replace(LIMITS, aspect=1)),
    ],
)
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "dicom"])
def test_each_limit(kind: str, code: Code, limits: ImageLimits) -> None:
    pixels = np.tile(GREY, (2, 3))[:20, :40]
    data = dicom(pixels) if kind == "dicom" else saved(Image.fromarray(pixels), kind)
    with pytest.raises(ItemError) as refused:
        probe(data, limits)
    assert refused.value.code is code
    exact = ImageLimits(bytes=len(data), pixels=800, side=40, min_side=20, aspect=2)
    header = probe(data, exact)
    assert (header.kind, header.width, header.height) == (kind, 40, 20)


def test_a_limit_is_named_by_its_number() -> None:
    with pytest.raises(ItemError, match="more than 100 pixels"):
        probe(png(GREY), replace(LIMITS, pixels=100))


def webp_canvas(width: int, height: int) -> bytes:
    body = b"VP8X" + struct.pack("<II", 10, 0) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBP" + body + FILES["webp"]()[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(rgb_png(50_000, 50_000, 8, bytes(10_000)), id="png of 2.5 gigapixels"),
        pytest.param(rgb_png(2**31 - 1, 2**31 - 1, 8, bytes(10_000)), id="png of 4 exapixels"),
        pytest.param(webp_canvas(16_000, 16_000), id="webp"),
        pytest.param(png_with(png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000), 9))), id="zTXt"),
        pytest.param(png_with(png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(200_000_000), 9))), id="iCCP"),
        pytest.param(png_with(png_chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(200_000_000)))), id="iTXt"),
    ],
)
def test_bombs_are_refused_before_they_grow(bomb: bytes) -> None:
    with memory_below(8_000_000):
        assert refusal(bomb) in (Code.IMAGE_TOO_LARGE, Code.IMAGE_INVALID)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = saved(Image.fromarray(COLOUR), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert read(data).shape == (16, 16, 3)
    assert refusal(data[:-2] + data[last:-2] * 100 + data[-2:]) is Code.IMAGE_INVALID


# What is not an image of ours


def other(kind: str) -> bytes:
    return saved(Image.fromarray(COLOUR), kind)


@pytest.mark.parametrize(
    "data",
    [
        *(
            pytest.param(other(kind), id=kind)
            for kind in ("GIF", "TIFF", "BMP", "EPS", "PDF", "PPM", "JPEG2000", "ICO")
        ),
        pytest.param(other("AVIF"), id="AVIF"),
        pytest.param(b'<svg xmlns="http://www.w3.org/2000/svg"/>', id="SVG"),
        pytest.param(b"\x00", id="a zero"),
        pytest.param(b" " + png(GREY), id="late PNG"),
        pytest.param(b"RIFF\x04\0\0\0WAVE", id="WAVE"),
    ],
)
def test_other_kinds_are_refused(data: bytes) -> None:
    assert refusal(data) is Code.IMAGE_KIND


def test_the_first_bytes_decide_whatever_else_a_file_holds() -> None:
    page = b"<script>alert(1)</script>" + dicom(GREY)[128:]
    assert np.array_equal(read(png(COLOUR) + page), COLOUR)
    tiff = other("TIFF")[:128]
    assert np.array_equal(read(tiff.ljust(128, b"\0") + dicom(GREY)[128:]), grey_as_rgb(GREY))
    jpeg_first = b"\xff\xd8\xff\xe1".ljust(128, b"\0") + dicom(GREY)[128:]
    assert refusal(jpeg_first) is Code.IMAGE_INVALID


def test_empty_and_headers_alone_are_invalid() -> None:
    for data in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8 ", bytes(128) + b"DICM"):
        assert refusal(data) in (Code.IMAGE_INVALID, Code.IMAGE_KIND)
    assert refusal(b"") is Code.IMAGE_INVALID


@pytest.mark.parametrize("name", ["jpeg grey", "jpeg colour", "png colour", "png 16 bit", "webp", "dicom grey"])
def test_every_truncation_is_refused(name: str) -> None:
    data = FILES[name]()
    for length in range(1, len(data) - 4, 5):
        assert refusal(data[:length]) in (Code.IMAGE_INVALID, Code.IMAGE_KIND), length


def test_a_flipped_bit_in_a_png_is_refused() -> None:
    data = png(COLOUR)
    start = data.index(b"IDAT")
    for position in range(start, len(data) - 12, 7):
        broken = bytearray(data)
        broken[position] ^= 4
        assert refusal(bytes(broken)) is Code.IMAGE_INVALID


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animation_is_refused_and_a_single_frame_is_not(kind: str) -> None:
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    assert refusal(saved(frames[0], kind, save_all=True, append_images=frames[1:])) is Code.IMAGE_ANIMATED
    assert np.array_equal(read(saved(frames[0], kind, save_all=True, lossless=True)), COLOUR)


def test_an_honest_text_chunk_is_no_bomb() -> None:
    text = PngInfo()
    text.add_text("Comment", "x" * 5000, zip=True)
    assert np.array_equal(read(png(COLOUR, pnginfo=text)), COLOUR)


# Whatever comes: pixels or an item error


def pixels_or_item_error(data: bytes) -> None:
    try:
        pixels = read(data, SMALL)
    except ItemError:
        return
    assert pixels.shape == (10, 12, 3)
    assert pixels.dtype == np.uint8


MAGIC: Final = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBPVP8L", bytes(128) + b"DICM"]


@settings(deadline=None)
@given(st.sampled_from([b"", *MAGIC]), st.binary(max_size=300))
def test_random_bytes(magic: bytes, rest: bytes) -> None:
    pixels_or_item_error(magic + rest)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_damaged_files(name: str, damages: list[tuple[float, int]], kept: float) -> None:
    data = bytearray(FILES[name]())
    for where, value in damages:
        data[int(where * len(data))] = value
    pixels_or_item_error(bytes(data[: len(data) if kept > 0.5 else int(2 * kept * len(data))]))
