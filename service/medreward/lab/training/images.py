"""Images at the model's size, made once by the server's own rules and kept in one file."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medreward.encoding.image import ImageLimits, decode, probe
from medreward.encoding.sizes import ImageSpec

LIMITS: Final = ImageLimits(bytes=2**25, pixels=2**26, side=2**14, min_side=8, aspect=50)
BLOTTED: Final = 0.3  # share of the shaken pictures

Pixels = NDArray[np.uint8]
Maker = Callable[[], bytes]


class Images:
    """Holds uint8 pictures by name."""

    def __init__(self, pixels: Pixels, names: Sequence[str]) -> None:
        self._pixels = pixels
        self._places = {name: place for place, name in enumerate(names)}

    def __getitem__(self, names: Sequence[str]) -> Pixels:
        return self._pixels[[self._places[name] for name in names]]

    def __contains__(self, name: object) -> bool:
        return name in self._places


def fitted(data: bytes, side: int) -> Pixels:
    return decode(data, probe(data, LIMITS), ImageSpec(side, side))


def png(pixels: Pixels) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def cached(makers: Mapping[str, Maker], side: int, cache: Path) -> Images:
    """Returns the images of these names; they are made only if the cache has no file of these names and size."""
    names = sorted(makers)
    digest = hashlib.sha256("\n".join([str(side), *names]).encode()).hexdigest()[:16]
    path = cache / f"images-{digest}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp.npy")
        pixels = np.lib.format.open_memmap(draft, "w+", np.uint8, (len(names), side, side, 3))
        for place, name in enumerate(names):
            pixels[place] = fitted(makers[name](), side)
        pixels.flush()
        draft.replace(path)
    return Images(np.load(path, mmap_mode="r"), names)


def shaken(pixels: Pixels, mirrored: Sequence[bool], seed: Sequence[int]) -> Pixels:
    """Returns the pictures moved, turned, scaled and lit a little differently; some have a patch blotted out."""
    dice = np.random.default_rng(seed)
    turned = (picture[:, ::-1] if turn else picture for picture, turn in zip(pixels, mirrored, strict=True))
    return np.stack([_shaken(Image.fromarray(np.ascontiguousarray(picture)), dice) for picture in turned])


def _shaken(picture: Image.Image, dice: np.random.Generator) -> Pixels:
    angle, scale = dice.uniform(-0.2, 0.2), dice.uniform(0.75, 1.12)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    middle = picture.width / 2
    x, y = middle + dice.uniform(-0.06, 0.06, 2) * picture.width
    place = (cos, -sin, x - cos * middle + sin * middle, sin, cos, y - sin * middle - cos * middle)
    moved = picture.transform(picture.size, Image.Transform.AFFINE, place, Image.Resampling.BILINEAR)
    gamma, contrast, light = dice.uniform(0.7, 1.4), dice.uniform(0.75, 1.25), dice.uniform(-0.1, 0.1)
    levels = (np.linspace(0, 1, 256) ** gamma - 0.5) * contrast + 0.5 + light
    table = np.round(255 * levels.clip(0, 1)).astype(int).tolist()
    found = np.array(moved.point(3 * table))
    if dice.random() < BLOTTED:
        height, width = (dice.uniform(0.1, 0.3, 2) * len(found)).astype(int)
        top, left = dice.integers(0, (len(found) - height, len(found) - width))
        found[top : top + height, left : left + width] = found.mean((0, 1))  # a bright one would be a finding
    return found
