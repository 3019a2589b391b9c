"""Whatever a caller holds as an image, as the bytes of a file. Pixels become PNG, which loses nothing."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from medreward.types import StoredImage, UrlImage

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

ImageLike: TypeAlias = (
    "bytes | str | os.PathLike[str] | Picture | np.ndarray[Any, Any] | Mapping[str, Any] | Source | None"
)


@dataclass(frozen=True, slots=True)
class File:
    data: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that is of a known kind but cannot be read: the error of the responses about it, no exception."""

    reason: str


Source: TypeAlias = File | UrlImage | StoredImage | Unreadable | None


def load(image: ImageLike) -> Source:
    """A TypeError where no such image can ever be sent."""
    if isinstance(image, File | UrlImage | StoredImage | Unreadable):
        return image
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return UrlImage(image)
    try:
        data = image_bytes(image)
    except (OSError, ValueError, SyntaxError) as error:  # the last from Pillow, of broken PNG files
        return Unreadable(f"the client cannot read this image: {error}")
    return None if data is None else File(data, hashlib.sha256(data).hexdigest())


def image_bytes(image: ImageLike) -> bytes | None:
    """Bytes as they are, a path's content, pixels of PIL or numpy as PNG, a data set's {"bytes", "path"} row."""
    if image is None or isinstance(image, bytes):
        return image
    if isinstance(image, File):
        return image.data
    if isinstance(image, UrlImage | StoredImage | Unreadable):
        raise TypeError("this image has no bytes here")
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, Mapping):
        return _from_row(image)
    from PIL import Image

    if isinstance(image, Image.Image):
        return _png(image)
    if hasattr(image, "__array_interface__"):
        return _png(_from_array(image))
    raise TypeError(f"an image cannot be a {type(image).__name__}")


def _from_row(row: Mapping[str, Any]) -> bytes | None:
    if row.get("bytes") is not None:
        return bytes(row["bytes"])
    if row.get("path") is not None:
        return Path(row["path"]).read_bytes()
    raise ValueError("the row has neither bytes nor a path")


def _from_array(array: np.ndarray[Any, Any]) -> Picture:
    from PIL import Image

    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    kind = array.dtype.name, 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if kind not in (("uint8", 1), ("uint8", 3), ("uint8", 4), ("uint16", 1)):
        raise TypeError("an image array is uint8 (grey, RGB or RGBA) or uint16 (grey), height first, channels last")
    return Image.fromarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def _png(picture: Picture) -> bytes:
    """As displayed: turned by its EXIF orientation, as a server does with a file."""
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "F"):
        raise TypeError(f"pixels of mode {picture.mode} have no agreed range: convert them to L, RGB or I;16")
    if picture.mode.startswith("I;16"):
        picture = picture.convert("I;16")
    elif picture.mode in ("PA", "RGBa"):
        picture = picture.convert("RGBA")
    elif picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        picture = picture.convert("RGB")
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
