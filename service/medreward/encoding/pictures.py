"""JPEG, PNG and WebP files: their size by the header, and their picture of 8 bits, upright and opaque.

Pillow's file classes are called by name instead of through `Image.open`: no other format's parser can be reached, and
no decision hangs on Pillow's global pixel limit.
"""

from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from medreward.errors import Code, ItemError

HEADER_READS: Final = 5_000  # a few a chunk or segment; an honest file has dozens before its pixels
FILE_READS: Final = 100_000  # an encoder that writes its pixels in pieces of 1 KB stays below
EXIF_BYTES: Final = 65_536  # what fits in a JPEG
JPEG_SCANS: Final = 64  # an honest progressive file has about ten; each scan costs a pass over the whole image

FILE_CLASS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "jpeg": JpegImageFile,
    "png": PngImageFile,
    "webp": WebPImageFile,
}
UPRIGHT: Final = {  # EXIF orientation → what brings the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION: Final = 0x0112
SIDEWAYS: Final = 5  # orientations from here on swap width and height


class BoundedReads(BytesIO):
    """A file in memory that raises ValueError after so many reads, which ends the parsing of one in tiny pieces."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data)
        self._left = reads

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ValueError
        return super().read(size)


def refused(code: Code, detail: str) -> ItemError:
    """Returns the error of an item whose image is refused."""
    return ItemError(code, detail, "image")


def picture_size(data: bytes, kind: str) -> tuple[int, int]:
    """Returns width and height by the header, as the picture is shown; refuses an animated one."""
    image = FILE_CLASS[kind](BoundedReads(data, HEADER_READS))
    if getattr(image, "n_frames", 1) > 1:
        raise refused(Code.IMAGE_ANIMATED, "the image is animated")
    return image.size if _orientation(image) < SIDEWAYS else (image.height, image.width)


def _orientation(image: ImageFile.ImageFile) -> int:
    """Returns the EXIF orientation that stands before the pixels, or 1 where it is missing or cannot be read."""
    exif, tags = Image.Exif(), image.info.get("exif", b"")
    if len(tags) > EXIF_BYTES:
        return 1
    try:
        exif.load(tags)
        orientation = exif.get(ORIENTATION)
    except Exception:
        return 1
    return orientation if orientation in UPRIGHT else 1


def upright_picture(data: bytes, kind: str, wanted: tuple[int, int]) -> Image.Image:
    """Returns the picture, upright and of at least the size `wanted`; a JPEG may be decoded smaller than it is."""
    if kind == "png":
        PngImageFile(BoundedReads(data, FILE_READS)).verify()  # checksums of all chunks, which loading skips
    if kind == "jpeg":
        check_scans(data)
    image = FILE_CLASS[kind](BoundedReads(data, FILE_READS))
    orientation = _orientation(image)
    if isinstance(image, JpegImageFile):
        # libjpeg leaves out detail that would be scaled away, down to no less than this size.
        image.draft(None, wanted if orientation < SIDEWAYS else (wanted[1], wanted[0]))
    picture = _flattened(image)
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def check_scans(jpeg: bytes) -> None:
    """Refuses a JPEG of very many scans."""
    if jpeg.count(b"\xff\xda") > JPEG_SCANS:
        raise refused(Code.IMAGE_INVALID, f"the JPEG has more than {JPEG_SCANS} scans")


def _flattened(image: ImageFile.ImageFile) -> Image.Image:
    """Returns the picture as grey or RGB of 8 bits, on white where it is transparent."""
    if image.tile and image.tile[0].args == "RGB;16B":
        image.info.pop("transparency", None)  # a 16-bit colour key would be compared with 8-bit pixels
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        picture = image if image.mode == "RGBA" else image.convert("RGBA")
        background = Image.new("RGB", image.size, "white")
        background.paste(picture, mask=picture)
        return background
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)
