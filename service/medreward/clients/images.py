"""Makes the bytes of a file of whatever a caller holds as an image. Pixels become PNG, which loses nothing."""

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
    """An image as a file, and its sha256."""

    data: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image of a known kind that cannot be read. It raises nothing: the responses about it get its reason as
    error.
    """

    reason: str


Source: TypeAlias = File | UrlImage | StoredImage | Unreadable | None


def load(image: ImageLike) -> Source:
    """Returns the image as the client sends it. Raises TypeError for what can be no image at all."""
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
    """Returns the bytes of the image's file: a path's content, a row's bytes, pixels of PIL or numpy as PNG.

    Raises OSError, ValueError or Pillow's SyntaxError for an image that cannot be read, and TypeError for any other
    object.
    """
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
        if image.get("bytes") is not None:
            return bytes(image["bytes"])
        if image.get("path") is not None:
            return Path(image["path"]).read_bytes()
        raise ValueError("the row has neither bytes nor a path")
    from PIL import Image

    if isinstance(image, Image.Image):
        return _png(image)
    if hasattr(image, "__array_interface__"):
        return _png(_from_array(image))
    raise TypeError(f"an image cannot be a {type(image).__name__}")


def _from_array(array: np.ndarray[Any, Any]) -> Picture:
    from PIL import Image

    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    kind = array.dtype.name, 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if kind not in (("uint8", 1), ("uint8", 3), ("uint8", 4), ("uint16", 1)):
        raise TypeError("an image array is uint8 (grey, RGB or RGBA) or uint16 (grey), height first, channels last")
    return Image.fromarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def _png(picture: Picture) -> bytes:
    """Returns the picture as a PNG file, turned by its EXIF orientation, as a server turns a file."""
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
