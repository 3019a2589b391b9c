"""Images at the model's size, made once by the server's own rules and kept in one file."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from medreward.encoding.image import ImageLimits, ImageSpec, decode, probe

LIMITS: Final = ImageLimits(bytes=2**25, pixels=2**26, side=2**14, min_side=8, aspect=50)

Pixels = NDArray[np.uint8]
Maker = Callable[[], bytes]


class Images:
    """uint8 pictures by name."""

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


def cached(makers: Mapping[str, Maker], side: int, cache: Path, progress: Callable[[int], None]) -> Images:
    """The images of these names; drawn, read and fitted only where the cache has no file of the same names and size."""
    names = sorted(makers)
    digest = hashlib.sha256("\n".join([str(side), *names]).encode()).hexdigest()[:16]
    path = cache / f"images-{digest}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp.npy")
        pixels = np.lib.format.open_memmap(draft, "w+", np.uint8, (len(names), side, side, 3))
        for place, name in enumerate(names):
            pixels[place] = fitted(makers[name](), side)
            progress(place)
        pixels.flush()
        draft.replace(path)
    return Images(np.load(path, mmap_mode="r"), names)


def shaken(pixels: Pixels, seed: Sequence[int]) -> Tensor:
    """The pictures moved, turned, scaled and lit a little differently; never mirrored, as sides matter."""
    dice = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**62)))

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(pixels), *shape, generator=dice)

    picture = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32) / 255.0
    angle, scale = between(-0.15, 0.15), between(0.82, 1.1)
    turn = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)], 1).view(-1, 2, 2)
    place = torch.cat([turn * scale[:, None, None], between(-0.1, 0.1, 2, 1)], 2)
    grid = nn.functional.affine_grid(place, list(picture.shape), align_corners=False)
    picture = nn.functional.grid_sample(picture, grid, align_corners=False)
    picture = picture.clamp(1e-3, 1.0) ** between(0.75, 1.35, 1, 1, 1)
    picture = (picture - 0.5) * between(0.8, 1.2, 1, 1, 1) + 0.5 + between(-0.08, 0.08, 1, 1, 1)
    return picture.clamp(0.0, 1.0).contiguous(memory_format=torch.channels_last)
