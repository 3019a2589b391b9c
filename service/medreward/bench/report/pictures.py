"""An image of a data set as a small data URI: pixels only, nothing else that its file says."""

import base64
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, ImageOps

SIDE: Final = 320
QUALITY: Final = 80


def data_uri(data: bytes) -> str | None:
    """None for what cannot be shown."""
    try:
        with Image.open(BytesIO(data)) as image:
            image.draft("RGB", (SIDE, SIDE))
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((SIDE, SIDE))
            file = BytesIO()
            _shown(upright).save(file, "JPEG", quality=QUALITY)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # the third from broken PNG files
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _shown(image: Image.Image) -> Image.Image:
    """Deep greys are stretched to what a screen has, as a viewer would."""
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    grey = np.asarray(image, np.float64)
    grey -= grey.min()
    return Image.fromarray((grey * (255 / (grey.max() or 1))).astype(np.uint8))
