"""Small image files made in code: good ones of every kind, and one of each way to be bad."""

import struct
import zlib
from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian


def pixels(seed: int = 0, width: int = 48, height: int = 40) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(form: str, *frames: NDArray[np.uint8]) -> bytes:
    first, *rest = (Image.fromarray(frame) for frame in frames)
    file = BytesIO()
    animation = {"save_all": True, "append_images": rest} if rest else {}
    first.save(file, form, **animation)
    return file.getvalue()


@cache
def jpeg(seed: int = 0) -> bytes:
    return encoded("JPEG", pixels(seed))


@cache
def png(seed: int = 0, width: int = 48, height: int = 40) -> bytes:
    return encoded("PNG", pixels(seed, width, height))


@cache
def webp(seed: int = 0) -> bytes:
    return encoded("WEBP", pixels(seed))


@cache
def animated(form: str) -> bytes:
    return encoded(form, pixels(1), pixels(2))


@cache
def dicom_series(frames: int) -> bytes:
    """A file of several frames, no two alike."""
    return dicom(0, ExplicitVRLittleEndian, frames)


@cache
def dicom(seed: int = 0, syntax: UID = ExplicitVRLittleEndian, frames: int = 1) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1.1")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 40, 48, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = b"".join(pixels(seed + n)[..., 0].tobytes() for n in range(frames))
    if frames > 1:
        dataset.NumberOfFrames = frames
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def deflated_dicom() -> bytes:
    return dicom(syntax=DeflatedExplicitVRLittleEndian)


def png_that_claims(width: int, height: int) -> bytes:
    """A few bytes whose header promises an image of that size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    length_and_checksum = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + length_and_checksum[0] + header + length_and_checksum[1] + png()[33:]


def cut_short(file: bytes) -> bytes:
    return file[: len(file) // 2]


def larger_than(size: int) -> bytes:
    """A good PNG file of more bytes than that."""
    side = int((size / 3) ** 0.5) + 32
    return png(0, side, side)
