"""Image files that mean harm, or only look so."""

import struct
import zipfile
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pictures

GIB = 1024**3
PIECE = 16 * 1024 * 1024


def deflated_zeros(size: int) -> bytes:
    """A zlib stream that unpacks to so many zeros, made without packing them all."""
    pack = zlib.compressobj(9)
    head = pack.compress(bytes(PIECE)) + pack.flush(zlib.Z_FULL_FLUSH)
    again = pack.compress(bytes(PIECE)) + pack.flush(zlib.Z_FULL_FLUSH)
    pieces, rest = divmod(size, PIECE)
    last = pack.compress(bytes(rest)) + pack.flush(zlib.Z_FULL_FLUSH)
    end = b"\x03\x00" + struct.pack(">I", (size % 65_521) << 16 | 1)  # an empty last block, Adler-32 of zeros
    return head + again * (pieces - 1) + last + end


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, data: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """8-bit grey, its pixels packed already."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


def grey_png(side: int = 16, before: bytes = b"", after: bytes = b"") -> bytes:
    return png(side, side, zlib.compress(b"\0".join([b"", *[bytes([90]) * side] * side])), before, after)


def png_bomb(side: int) -> bytes:
    return png(side, side, deflated_zeros(side * (side + 1)))


def text_bomb() -> bytes:
    return chunk(b"zTXt", b"k\0\0" + deflated_zeros(GIB))


def profile_bomb() -> bytes:
    return chunk(b"iCCP", b"k\0\0" + deflated_zeros(GIB))


def animated_png(frames: int) -> bytes:
    control = struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 1, 10, 0, 0)
    pixels = zlib.compress(b"\0".join([b"", *[bytes([90]) * 16] * 16]))
    before = chunk(b"acTL", struct.pack(">II", frames, 0)) + chunk(b"fcTL", control)
    more = chunk(b"fcTL", b"\0\0\0\1" + control[4:]) + chunk(b"fdAT", b"\0\0\0\2" + pixels)
    return grey_png(before=before, after=more * (frames - 1))


def animated_webp(frames: int) -> bytes:
    still = pictures.encoded("WEBP", np.full((16, 16, 3), 90, np.uint8))[12:]
    frame = b"ANMF" + struct.pack("<I", 16 + len(still)) + bytes(6) + b"\x0f\0\0\x0f\0\0" + b"\x0a\0\0\0" + still
    body = b"WEBPVP8X" + struct.pack("<II", 10, 2) + b"\x0f\0\0\x0f\0\0" + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += frame * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


def animated_gif(frames: int) -> bytes:
    still = pictures.encoded("GIF", pictures.pixels(0, 16, 16))
    start = still.index(b"\x2c", 13 + 3 * 256)
    return still[:start] + still[start:-1] * frames + b";"


def webp_canvas(side: int) -> bytes:
    still = pictures.encoded("WEBP", pictures.pixels(0, 16, 16))[12:]
    size = struct.pack("<I", side - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + size + size + still
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_that_claims(side: int) -> bytes:
    file = pictures.jpeg()
    size = file.index(b"\xff\xc0") + 5
    return file[:size] + struct.pack(">HH", side, side) + file[size + 4 :]


def jpeg_of_segments(count: int) -> bytes:
    file = pictures.jpeg()
    return file[:2] + b"\xff\xe1\0\2" * count + file[2:]


def chunks(count: int) -> bytes:
    return chunk(b"abCd", b"") * count


def png_in_pieces(side: int, piece: int) -> bytes:
    """Random pixels, packed, in IDAT chunks of so many bytes."""
    rows = np.random.default_rng(5).integers(0, 256, (side, side + 1), np.uint8)
    rows[:, 0] = 0  # no filter
    packed = zlib.compress(rows.tobytes())
    pieces = [chunk(b"IDAT", packed[at : at + piece]) for at in range(0, len(packed), piece)]
    whole = png(side, side, b"")
    return whole.replace(chunk(b"IDAT", b""), b"".join(pieces))


def large_exif(entries: int) -> bytes:
    return b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + struct.pack("<HHII", 0x112, 3, 1, 6) * entries + bytes(4)


def flipped(file: bytes, at: int) -> bytes:
    return file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]


def archive() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("META-INF/MANIFEST.MF", "Main-Class: Evil")
    return file.getvalue()


def with_preamble(start: bytes) -> bytes:
    return start[:128].ljust(128, b"\0") + pictures.dicom()[128:]


def other(kind: str) -> bytes:
    return pictures.encoded(kind, pictures.pixels())


def deep_png() -> bytes:
    """16-bit grey whose high bytes are those of `shallow_png`."""
    return saved(Image.fromarray(_grey().astype(np.uint16) * 256 + 255), "PNG")


def shallow_png() -> bytes:
    return saved(Image.fromarray(_grey()), "PNG")


def _grey() -> NDArray[np.uint8]:
    return np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned_png(orientation: int) -> bytes:
    """The same picture stored in each of the eight ways."""
    flips = Image.Transpose
    ways = {
        2: flips.FLIP_LEFT_RIGHT,
        3: flips.ROTATE_180,
        4: flips.FLIP_TOP_BOTTOM,
        5: flips.TRANSPOSE,
        6: flips.ROTATE_90,
        7: flips.TRANSVERSE,
        8: flips.ROTATE_270,
    }
    upright = Image.fromarray(pictures.pixels(3, 40, 30))
    tags = Image.Exif()
    tags[0x0112] = orientation
    stored = upright.transpose(ways[orientation]) if orientation in ways else upright
    return saved(stored, "PNG", exif=tags)
