"""DICOM files: their size by the header, and one frame as a picture of 8 bits. Other tags stay unread."""

import struct
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import as_pixel_options
from pydicom.tag import BaseTag

from medreward.encoding.pictures import BoundedReads, check_scans, refused
from medreward.errors import Code

Shades = NDArray[np.uint8]
Stored = NDArray[np.integer[Any]]

DICOM_READS: Final = 200_000  # reads the parser may make, about two an element

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


def _read_dicom(data: bytes, header_only: bool) -> Dataset:
    """Returns the tags that decide pixels; refuses a transfer syntax that we do not decode.

    `dcmread` is not used, because it inflates a deflated file without bound before anything can be asked.
    """
    stream = BoundedReads(data, DICOM_READS)
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = meta.get("TransferSyntaxUID")
    if syntax not in DICOM_SYNTAXES:
        raise refused(Code.IMAGE_KIND, "the DICOM transfer syntax is not supported")
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


def dicom_size(data: bytes) -> tuple[int, int, int]:
    """Returns width, height and how many frames by the header; refuses kinds of pixels that we do not show."""
    dataset = _read_dicom(data, header_only=True)
    samples, bits = int(dataset.SamplesPerPixel), int(dataset.BitsAllocated)
    expected = 3 if dataset.PhotometricInterpretation in COLOUR else 1
    if dataset.PhotometricInterpretation not in GREY | COLOUR | {"PALETTE COLOR"} or samples != expected:
        raise refused(Code.IMAGE_KIND, "the DICOM photometric interpretation is not supported")
    if bits not in (8, 16):
        raise refused(Code.IMAGE_KIND, "only DICOM pixels of 8 or 16 bits are supported")
    return int(dataset.Columns), int(dataset.Rows), _frames(dataset)


def dicom_picture(data: bytes, number: int | None = None) -> Image.Image:
    """Returns the frame of this number, by default the middle one, as grey or RGB of 8 bits."""
    dataset = _read_dicom(data, header_only=False)
    frame = _frame(dataset, _frames(dataset) // 2 if number is None else number)
    if dataset.PhotometricInterpretation in COLOUR:
        colours = frame >> (int(dataset.BitsStored) - 8) if frame.dtype.itemsize > 1 else frame
        return Image.fromarray(colours.astype(np.uint8))
    # All that follows maps one stored value to one shade, so it is worked out once a value and not once a pixel.
    unsigned = np.dtype(f"u{frame.dtype.itemsize}")
    values = np.arange(2 ** (8 * unsigned.itemsize), dtype=unsigned).view(frame.dtype)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        palette = apply_color_lut(values, dataset)[:, :3]
        shades: Shades = (palette >> (8 * palette.itemsize - 8)).astype(np.uint8)
    else:
        shades = _grey(values, dataset, (int(frame.min()), int(frame.max())))
    return Image.fromarray(np.take(shades, frame.view(unsigned), axis=0))


def _frames(dataset: Dataset) -> int:
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def _frame(dataset: Dataset, number: int) -> Stored:
    """Returns the frame as it is stored; refuses one that does not fit the header."""
    syntax, frames = dataset.file_meta.TransferSyntaxUID, _frames(dataset)
    options = as_pixel_options(dataset, pixel_keyword="PixelData")
    if syntax in NATIVE:
        return _decoded(syntax, dataset.PixelData, number, options)
    frame = get_frame(dataset.PixelData, number, number_of_frames=frames)
    options["number_of_frames"] = 1
    if syntax == uid.RLELossless:
        options["planar_configuration"] = 1
        return _decoded(uid.ExplicitVRLittleEndian, _unpacked(frame, dataset), 0, options)
    check_scans(frame)
    if DICOM_FRAME_CLASS[syntax](BytesIO(frame)).size != (dataset.Columns, dataset.Rows):
        raise refused(Code.IMAGE_INVALID, "the DICOM header and its pixels differ in size")
    return _decoded(syntax, encapsulate([frame]), 0, options)


def _decoded(syntax: uid.UID, buffer: bytes, index: int, options: dict[str, Any]) -> Stored:
    options["transfer_syntax_uid"] = syntax
    plugin = "" if syntax in NATIVE else "pillow"  # by name, so that pixels are the same whatever is installed
    pixels: Stored = get_decoder(syntax).as_array(buffer, index=index, decoding_plugin=plugin, **options)[0]
    return pixels


def _unpacked(frame: bytes, dataset: Dataset) -> bytes:
    """Unpacks a frame of DICOM RLE, which is PackBits. Pillow's decoder cannot be made to write past the image."""
    count, *starts = struct.unpack("<16L", frame[:64])
    depth = int(dataset.BitsAllocated) // 8
    if count != depth * dataset.SamplesPerPixel:
        raise refused(Code.IMAGE_INVALID, "the DICOM header and its pixels differ in depth")
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


def _grey(values: Stored, dataset: Dataset, extremes: tuple[int, int]) -> Shades:
    """Returns the shade of every stored value.

    The modality LUT comes first; then the VOI LUT, else the first window, else the range from darkest to brightest.
    """
    with np.errstate(all="ignore"):
        modality = apply_modality_lut(values, dataset).astype(np.float64)
        if not np.isfinite(modality).all():
            raise refused(Code.IMAGE_INVALID, "the DICOM rescale is not finite")
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
        shades: Shades = np.rint(255 * np.clip(light, 0, 1)).astype(np.uint8)
        return shades


def _first(dataset: Dataset, name: str) -> float | None:
    """Returns the tag's number, the first one of several, or None where there is none."""
    value = dataset.get(name)
    if value is None or isinstance(value, str | int | float):
        return None if value in (None, "") else float(value)
    return float(value[0])


def _windowed(values: NDArray[np.float64], dataset: Dataset) -> NDArray[np.float64]:
    """Returns the values through the window, from 0 (black) to 1 (white), by DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    centre, width = _first(dataset, "WindowCenter") or 0.0, _first(dataset, "WindowWidth") or 0.0
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if not np.isfinite([centre, width]).all() or width <= 0 or (function == "LINEAR" and width < 1):
        raise refused(Code.IMAGE_INVALID, "the DICOM window is not valid")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5
