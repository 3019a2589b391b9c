"""Bytes of a stranger's file to safe, model-sized pixels. The rules are written in docs/images.md.

Pillow's file classes are called by name instead of through `Image.open`: no other format's parser can be reached, and
no decision hangs on Pillow's global pixel limit.
"""

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import as_pixel_options
from pydicom.tag import BaseTag

from medreward.errors import Code, ItemError

Kind = Literal["jpeg", "png", "webp", "dicom"]
Pixels = NDArray[np.uint8]
Stored = NDArray[np.integer[Any]]

JPEG_SCANS: Final = 64  # an honest progressive file has about ten; each scan costs a pass over the whole image
DICOM_READS: Final = 500_000  # reads the parser may make, about two an element

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

NATIVE: Final = frozenset({uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian})
DICOM_FRAME_CLASS: Final[dict[uid.UID, type[ImageFile.ImageFile]]] = {
    uid.JPEGBaseline8Bit: JpegImageFile,
    uid.JPEG2000Lossless: Jpeg2KImageFile,
    uid.JPEG2000: Jpeg2KImageFile,
}
DICOM_SYNTAXES: Final = NATIVE | {uid.RLELossless} | DICOM_FRAME_CLASS.keys()
GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOUR: Final = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
PIXEL_GROUP: Final = 0x0028
PIXEL_DATA: Final = 0x7FE00010
DICOM_TAGS: Final[list[BaseTag | int]] = [
    *range(0x00280002, 0x00280009),  # samples, photometric interpretation, planar configuration, frames
    *(0x00280010, 0x00280011),  # rows, columns
    *range(0x00280100, 0x00280104),  # bits allocated, bits stored, high bit, signed
    *range(0x00281050, 0x00281057),  # window, rescale, window function
    *range(0x00281101, 0x00281104),  # palette
    *range(0x00281201, 0x00281204),
    *range(0x00281221, 0x00281224),
    *(0x00283000, 0x00283010),  # modality LUT, VOI LUT
    PIXEL_DATA,
]

# Both libraries quote a file's values, which may be a patient's, in what they log and warn.
LIBRARIES: Final = r"(PIL|pydicom)(\.|$)"
for _library in ("PIL", "pydicom"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    bytes: int
    pixels: int
    side: int
    min_side: int
    aspect: int


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What a model wants to see. `pad` keeps the aspect ratio on black, `stretch` does not."""

    width: int
    height: int
    fit: Literal["pad", "stretch"] = "pad"


@dataclass(frozen=True, slots=True)
class ImageHeader:
    kind: Kind
    width: int  # as displayed, after EXIF orientation
    height: int


def probe(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Refuse what must not be decoded, from its first bytes and its header."""
    if not data:
        raise _refused(Code.IMAGE_INVALID, "the image is empty")
    if len(data) > limits.bytes:
        raise _refused(Code.IMAGE_TOO_LARGE, f"the image is larger than {limits.bytes} bytes")
    kind = _sniff(data)
    with _library_errors():
        width, height = _dicom_size(data) if kind == "dicom" else _picture_size(data, kind)
    _check_size(width, height, limits)
    return ImageHeader(kind, width, height)


def decode(data: bytes, header: ImageHeader, spec: ImageSpec) -> Pixels:
    """Pixels of a probed image at the model's size: height, width, RGB."""
    with _library_errors():
        image = _dicom_picture(data) if header.kind == "dicom" else _upright_picture(data, header, spec)
        size = _fitted(image.width, image.height, spec)
        fitted = image.resize(size, Image.Resampling.BICUBIC).convert("RGB")
        canvas = Image.new("RGB", (spec.width, spec.height))
        canvas.paste(fitted, ((spec.width - fitted.width) // 2, (spec.height - fitted.height) // 2))
        return np.array(canvas)


def _refused(code: Code, detail: str) -> ItemError:
    return ItemError(code, detail, "image")


@contextmanager
def _library_errors() -> Iterator[None]:
    """Whatever a library says about a file becomes fixed text, and nothing of the file leaves by a warning."""
    _ignore_warnings()
    try:
        yield
    except ItemError:
        raise
    except Image.DecompressionBombError:
        raise _refused(Code.IMAGE_TOO_LARGE, "the image has too many pixels") from None
    except MemoryError:
        raise _refused(Code.OUT_OF_MEMORY, "not enough memory for the image") from None
    except Exception:  # Pillow and pydicom raise nearly every built-in type on broken files
        raise _refused(Code.IMAGE_INVALID, "the image is damaged") from None


def _ignore_warnings() -> None:
    # Not catch_warnings, which swaps process-wide state and is unsafe among threads: this only ever adds our filter.
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or getattr(first[3], "pattern", None) != LIBRARIES:
        warnings.filterwarnings("ignore", module=LIBRARIES)


def _sniff(data: bytes) -> Kind:
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data[128:132] == b"DICM":
        return "dicom"
    raise _refused(Code.IMAGE_KIND, "the image is not a JPEG, PNG, WebP or DICOM file")


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    longest, shortest = max(width, height), min(width, height)
    if longest > limits.side:
        raise _refused(Code.IMAGE_TOO_LARGE, f"a side of the image is longer than {limits.side} pixels")
    if width * height > limits.pixels:
        raise _refused(Code.IMAGE_TOO_LARGE, f"the image has more than {limits.pixels} pixels")
    if shortest < limits.min_side:
        raise _refused(Code.IMAGE_TOO_SMALL, f"a side of the image is shorter than {limits.min_side} pixels")
    if longest > limits.aspect * shortest:
        raise _refused(Code.IMAGE_TOO_SMALL, f"one side is more than {limits.aspect} times the other")


def _fitted(width: int, height: int, spec: ImageSpec) -> tuple[int, int]:
    if spec.fit == "stretch":
        return spec.width, spec.height
    if width * spec.height >= height * spec.width:
        return spec.width, max(1, (2 * height * spec.width + width) // (2 * width))
    return max(1, (2 * width * spec.height + height) // (2 * height)), spec.height


# JPEG, PNG, WebP


def _picture_size(data: bytes, kind: Kind) -> tuple[int, int]:
    image = FILE_CLASS[kind](BytesIO(data))
    if getattr(image, "n_frames", 1) > 1:
        raise _refused(Code.IMAGE_ANIMATED, "the image is animated")
    return image.size if _orientation(image) < SIDEWAYS else (image.height, image.width)


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF orientation, 1 where it is missing or cannot be read; only from what stands before the pixels."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ORIENTATION)
    except Exception:
        return 1
    return orientation if orientation in UPRIGHT else 1


def _upright_picture(data: bytes, header: ImageHeader, spec: ImageSpec) -> Image.Image:
    if header.kind == "png":
        PngImageFile(BytesIO(data)).verify()  # checksums of all chunks, which loading skips
    if header.kind == "jpeg":
        _check_scans(data)
    image = FILE_CLASS[header.kind](BytesIO(data))
    orientation = _orientation(image)
    if isinstance(image, JpegImageFile):
        _shrink_in_decoder(image, _fitted(header.width, header.height, spec), orientation)
    picture = _flattened(image)
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def _check_scans(jpeg: bytes) -> None:
    if jpeg.count(b"\xff\xda") > JPEG_SCANS:
        raise _refused(Code.IMAGE_INVALID, f"the JPEG has more than {JPEG_SCANS} scans")


def _shrink_in_decoder(image: JpegImageFile, size: tuple[int, int], orientation: int) -> None:
    """Let libjpeg drop detail nobody will see, to no less than twice the size wanted."""
    width, height = size if orientation < SIDEWAYS else (size[1], size[0])
    image.draft(None, (2 * width, 2 * height))


def _flattened(image: Image.Image) -> Image.Image:
    """8-bit grey or RGB, on white where it is transparent."""
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)


# DICOM


class _BoundedReads(BytesIO):
    """Stops the parsing of a file that is all tiny elements."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > DICOM_READS:
            raise ValueError
        return super().read(size)


def _read_dicom(data: bytes, header_only: bool) -> Dataset:
    """The tags that decide pixels, of a file whose transfer syntax we decode.

    Not `dcmread`, which inflates a deflated file without bound before anything can be asked.
    """
    stream = _BoundedReads(data)
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = meta.get("TransferSyntaxUID")
    if syntax not in DICOM_SYNTAXES:
        raise _refused(Code.IMAGE_KIND, "the DICOM transfer syntax is not supported")
    dataset = read_dataset(
        stream,
        syntax == uid.ImplicitVRLittleEndian,
        True,
        stop_when=(lambda tag, vr, length: tag.group > PIXEL_GROUP) if header_only else None,
        specific_tags=DICOM_TAGS,
    )
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _frames(dataset: Dataset) -> int:
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def _dicom_size(data: bytes) -> tuple[int, int]:
    dataset = _read_dicom(data, header_only=True)
    samples, bits = int(dataset.SamplesPerPixel), int(dataset.BitsAllocated)
    expected = 3 if dataset.PhotometricInterpretation in COLOUR else 1
    if dataset.PhotometricInterpretation not in GREY | COLOUR | {"PALETTE COLOR"} or samples != expected:
        raise _refused(Code.IMAGE_KIND, "the DICOM photometric interpretation is not supported")
    if bits not in (8, 16):
        raise _refused(Code.IMAGE_KIND, "only DICOM pixels of 8 or 16 bits are supported")
    width, height = int(dataset.Columns), int(dataset.Rows)
    stored = width * height * samples * bits // 8 * _frames(dataset)
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        stored = stored * 2 // 3
    if dataset.file_meta.TransferSyntaxUID in NATIVE and stored > len(data):
        raise _refused(Code.IMAGE_INVALID, "the DICOM file is shorter than its pixels")
    return width, height


def _dicom_picture(data: bytes) -> Image.Image:
    dataset = _read_dicom(data, header_only=False)
    frame = _middle_frame(dataset)
    if dataset.PhotometricInterpretation in COLOUR:
        colours = frame >> (int(dataset.BitsStored) - 8) if frame.dtype.itemsize > 1 else frame
        return Image.fromarray(colours.astype(np.uint8), "RGB")
    # All that follows maps one stored value to one shade, so it is worked out once a value and not once a pixel.
    unsigned = np.dtype(f"u{frame.dtype.itemsize}")
    values = np.arange(2 ** (8 * unsigned.itemsize), dtype=unsigned).view(frame.dtype)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        shades = _palette(values, dataset)
    else:
        shades = _grey(values, dataset, (int(frame.min()), int(frame.max())))
    return Image.fromarray(np.take(shades, frame.view(unsigned), axis=0))


def _middle_frame(dataset: Dataset) -> Stored:
    syntax, frames = dataset.file_meta.TransferSyntaxUID, _frames(dataset)
    options = as_pixel_options(dataset, pixel_keyword="PixelData")
    if syntax in NATIVE:
        return _decoded(syntax, dataset.PixelData, frames // 2, options)
    frame = get_frame(dataset.PixelData, frames // 2, number_of_frames=frames)
    options["number_of_frames"] = 1
    if syntax == uid.RLELossless:
        options["planar_configuration"] = 1
        return _decoded(uid.ExplicitVRLittleEndian, _unpacked(frame, dataset), 0, options)
    _check_scans(frame)
    if DICOM_FRAME_CLASS[syntax](BytesIO(frame)).size != (dataset.Columns, dataset.Rows):
        raise _refused(Code.IMAGE_INVALID, "the DICOM header and its pixels differ in size")
    return _decoded(syntax, encapsulate([frame]), 0, options)


def _decoded(syntax: uid.UID, buffer: bytes, index: int, options: dict[str, Any]) -> Stored:
    options["transfer_syntax_uid"] = syntax
    plugin = "" if syntax in NATIVE else "pillow"  # not whatever else is installed: pixels are the same everywhere
    pixels: Stored = get_decoder(syntax).as_array(buffer, index=index, decoding_plugin=plugin, **options)[0]
    return pixels


def _unpacked(frame: bytes, dataset: Dataset) -> bytes:
    """A frame of DICOM RLE, which is PackBits; Pillow's decoder cannot be made to write past the image."""
    count, *starts = struct.unpack("<16L", frame[:64])
    depth = int(dataset.BitsAllocated) // 8
    if count != depth * dataset.SamplesPerPixel:
        raise _refused(Code.IMAGE_INVALID, "the DICOM header and its pixels differ in depth")
    size = (int(dataset.Columns), int(dataset.Rows))
    ends = [*starts[1:count], len(frame)]
    planes = [
        Image.frombytes("L", size, frame[start:end], "packbits", "L").tobytes()
        for start, end in zip(starts, ends, strict=False)
    ]
    if depth == 1:
        return b"".join(planes)
    high_first = np.frombuffer(b"".join(planes), np.uint8).reshape(-1, depth, size[0] * size[1])
    return high_first[:, ::-1].transpose(0, 2, 1).tobytes()


def _palette(values: Stored, dataset: Dataset) -> Pixels:
    colours = apply_color_lut(values, dataset)[:, :3]
    return (colours >> (8 * colours.itemsize - 8)).astype(np.uint8)


def _grey(values: Stored, dataset: Dataset, extremes: tuple[int, int]) -> Pixels:
    """The shade of every stored value: modality, then the VOI LUT, the first window, or from darkest to brightest."""
    with np.errstate(all="ignore"):
        modality = apply_modality_lut(values, dataset).astype(np.float64)
        if not np.isfinite(modality).all():
            raise _refused(Code.IMAGE_INVALID, "the DICOM rescale is not finite")
        if dataset.get("VOILUTSequence"):
            full = 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
            light = apply_voi(np.rint(modality).astype(np.int64), dataset) / full
        elif _first(dataset, "WindowWidth") is not None and _first(dataset, "WindowCenter") is not None:
            light = _windowed(modality, dataset)
        else:
            ends = modality[np.isin(values, extremes)]
            light = (modality - ends.min()) / max(np.ptp(ends), np.finfo(float).tiny)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            light = 1 - light
        shades: Pixels = np.rint(255 * np.clip(light, 0, 1)).astype(np.uint8)
        return shades


def _first(dataset: Dataset, name: str) -> float | None:
    value = dataset.get(name)
    if value is None or isinstance(value, str | int | float):
        return None if value in (None, "") else float(value)
    return float(value[0])


def _windowed(values: NDArray[np.float64], dataset: Dataset) -> NDArray[np.float64]:
    """DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3, black 0 and white 1."""
    centre, width = _first(dataset, "WindowCenter") or 0.0, _first(dataset, "WindowWidth") or 0.0
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if not np.isfinite([centre, width]).all() or width <= 0 or (function == "LINEAR" and width < 1):
        raise _refused(Code.IMAGE_INVALID, "the DICOM window is not valid")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5
