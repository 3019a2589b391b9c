"""Bytes of a stranger's file to safe, model-sized pixels."""

from dataclasses import dataclass
from typing import Literal


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
    kind: Literal["jpeg", "png", "webp", "dicom"]
    width: int  # as displayed, after EXIF orientation
    height: int
