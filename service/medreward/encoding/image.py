"""Turns the bytes of a stranger's file into pixels of the model's size. The rules are written in docs/images.md."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medreward.encoding.cutting import put_together, tiles_of
from medreward.encoding.dicom import dicom_picture, dicom_size
from medreward.encoding.pictures import picture_size, refused, upright_picture
from medreward.encoding.sizes import Fit, ImageHeader, ImageSpec, Kind
from medreward.errors import Code, ItemError

Pixels = NDArray[np.uint8]

FILTERS: Final[dict[Fit, Image.Resampling]] = {  # of tiles: see cutting.py
    "pad": Image.Resampling.BILINEAR,
    "stretch": Image.Resampling.BILINEAR,
    "own": Image.Resampling.BICUBIC,
}

# Both libraries quote a file's values, which may be a patient's, in what they log and warn.
LIBRARIES: Final = r"(PIL|pydicom)(\.|$)"
for _library in ("PIL", "pydicom"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a file may be at most, and what its sides must be at least, to be decoded."""

    bytes: int
    pixels: int
    side: int
    min_side: int
    aspect: int


def probe(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Returns the header of a file that may be decoded; refuses any other file, before a pixel is decoded."""
    if not data:
        raise refused(Code.IMAGE_INVALID, "the image is empty")
    if len(data) > limits.bytes:
        raise refused(Code.IMAGE_TOO_LARGE, f"the image is larger than {limits.bytes} bytes")
    kind = _sniff(data)
    with _library_errors():
        width, height, frames = dicom_size(data) if kind == "dicom" else (*picture_size(data, kind), 1)
    _check_size(width, height, limits)
    return ImageHeader(kind, width, height, frames)


def decode(data: bytes, header: ImageHeader, spec: ImageSpec) -> Pixels:
    """Returns the pixels of a probed image at the model's size: height, width, RGB. Refuses a damaged file."""
    with _library_errors():
        size = _fitted_size(header.width, header.height, spec)
        # An image at its own size, or in tiles, has the very pixels that transformers' processors give it.
        least = (header.width, header.height) if spec.fit in ("own", "tiles") else size
        image = (
            dicom_picture(data, header.frame) if header.kind == "dicom" else upright_picture(data, header.kind, least)
        )
        if spec.cut:
            return tiles_of(image, spec.cut)
        fitted = image.resize(size, FILTERS[spec.fit]).convert("RGB")
        canvas = Image.new("RGB", (spec.width, spec.height))
        canvas.paste(fitted, ((spec.width - fitted.width) // 2, (spec.height - fitted.height) // 2))
        return np.array(canvas)


@contextmanager
def _library_errors() -> Iterator[None]:
    """Turns whatever a library raises into an item's error of fixed text, and silences the libraries' warnings."""
    # Not catch_warnings, which swaps process-wide state and is unsafe among threads: this only ever adds our filter.
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or getattr(first[3], "pattern", None) != LIBRARIES:
        warnings.filterwarnings("ignore", module=LIBRARIES)
    try:
        yield
    except ItemError:
        raise
    except Image.DecompressionBombError:
        raise refused(Code.IMAGE_TOO_LARGE, "the image has too many pixels") from None
    except MemoryError:
        raise refused(Code.OUT_OF_MEMORY, "not enough memory for the image") from None
    except Exception:  # Pillow and pydicom raise nearly every built-in type on broken files
        raise refused(Code.IMAGE_INVALID, "the image is damaged") from None


def is_dicom(data: bytes) -> bool:
    """Returns whether the file has DICOM's mark behind its preamble."""
    return data[128:132] == b"DICM"


def _sniff(data: bytes) -> Kind:
    """Returns the kind of the file by its first bytes; refuses any other kind."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if is_dicom(data):
        return "dicom"
    raise refused(Code.IMAGE_KIND, "the image is not a JPEG, PNG, WebP or DICOM file")


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    """Refuses an image that is too large, too small or too narrow."""
    longest, shortest = max(width, height), min(width, height)
    if longest > limits.side:
        raise refused(Code.IMAGE_TOO_LARGE, f"a side of the image is longer than {limits.side} pixels")
    if width * height > limits.pixels:
        raise refused(Code.IMAGE_TOO_LARGE, f"the image has more than {limits.pixels} pixels")
    if shortest < limits.min_side:
        raise refused(Code.IMAGE_TOO_SMALL, f"a side of the image is shorter than {limits.min_side} pixels")
    if longest > limits.aspect * shortest:
        raise refused(Code.IMAGE_TOO_SMALL, f"one side is more than {limits.aspect} times the other")


def without_fill(pixels: Pixels, header: ImageHeader, spec: ImageSpec) -> Pixels:
    """Returns the part of decoded pixels that shows the image, without the black around it; tiles are put together."""
    if spec.cut:
        return put_together(pixels, spec.cut)
    width, height = _fitted_size(header.width, header.height, spec)
    left, top = (spec.width - width) // 2, (spec.height - height) // 2
    return pixels[top : top + height, left : left + width]


def png(pixels: Pixels) -> bytes:
    """Returns pixels (height, width, RGB) as a PNG file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _fitted_size(width: int, height: int, spec: ImageSpec) -> tuple[int, int]:
    """Returns the size of the image itself within the model's. Whole numbers give every machine the same."""
    if spec.fit != "pad":
        return spec.width, spec.height
    if width * spec.height >= height * spec.width:
        return spec.width, max(1, (2 * height * spec.width + width) // (2 * width))
    return max(1, (2 * width * spec.height + height) // (2 * height)), spec.height
