"""Whatever a caller holds as an image, as the bytes of a file. Pixels become PNG, which loses nothing."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

ImageLike: TypeAlias = "bytes | str | os.PathLike[str] | Picture | np.ndarray[Any, Any] | Mapping[str, Any] | None"


def image_bytes(image: ImageLike) -> bytes | None:
    """Bytes as they are, a path's content, pixels of PIL or numpy as PNG, a data set's {"bytes", "path"} row."""
    if image is None or isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, Mapping):
        return image_bytes(image.get("bytes") or image.get("path"))
    from PIL import Image

    if isinstance(image, Image.Image):
        return _png(image)
    if hasattr(image, "__array_interface__"):
        return _png(_from_array(image))
    raise TypeError(f"an image cannot be a {type(image).__name__}")


def _from_array(array: np.ndarray[Any, Any]) -> Picture:
    from PIL import Image

    if array.dtype.name not in ("uint8", "uint16") or (array.dtype.name == "uint16" and array.ndim != 2):
        raise TypeError("an image array is uint8 (grey, RGB or RGBA) or uint16 (grey)")
    return Image.fromarray(array)


def _png(picture: Picture) -> bytes:
    if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        picture = picture.convert("RGB")
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
