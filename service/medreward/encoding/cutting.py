"""Cuts a picture into the tiles of a layout, with the very pixels that transformers' image processors give them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medreward.encoding.sizes import Cut, Rule

FILTERS: Final[dict[Rule, Image.Resampling]] = {
    "llava_next": Image.Resampling.BICUBIC,
    "llava_onevision": Image.Resampling.BICUBIC,
    "internvl": Image.Resampling.BICUBIC,
    "idefics3": Image.Resampling.LANCZOS,
}


def tiles_of(picture: Image.Image, cut: Cut) -> NDArray[np.uint8]:
    """Returns all tiles of the picture, one below the other: height, width, RGB."""
    resized = picture
    for size in cut.resized:
        resized = resized.resize(size, FILTERS[cut.rule])
    tiles = []
    if cut.rows:
        canvas = Image.new("RGB", (cut.columns * cut.tile, cut.rows * cut.tile))
        canvas.paste(resized.convert("RGB"), _corner(canvas, resized))
        rows = np.array(canvas).reshape(cut.rows, cut.tile, cut.columns, cut.tile, 3)
        tiles = [*rows.swapaxes(1, 2).reshape(-1, cut.tile, cut.tile, 3)]
    if cut.whole != "none":
        # Idefics3 makes the whole of what it cuts, and so scales twice.
        whole = resized if cut.rule == "idefics3" else _square(picture, cut)
        small = np.array(whole.resize((cut.tile, cut.tile), FILTERS[cut.rule]).convert("RGB"))
        tiles.insert(0 if cut.whole == "first" else len(tiles), small)
    return np.concatenate(tiles)


def put_together(pixels: NDArray[np.uint8], cut: Cut) -> NDArray[np.uint8]:
    """Returns the picture as its tiles show it, without the black around it, or the whole where it is not cut."""
    if not cut.rows:
        return pixels
    first = cut.tile if cut.whole == "first" else 0
    tiles = pixels[first : first + cut.rows * cut.columns * cut.tile]
    shape = cut.rows, cut.columns, cut.tile, cut.tile, 3
    canvas = tiles.reshape(shape).swapaxes(1, 2).reshape(cut.rows * cut.tile, cut.columns * cut.tile, 3)
    width, height = cut.resized[-1]
    left, top = (canvas.shape[1] - width) // 2, (canvas.shape[0] - height) // 2
    return canvas[top : top + height, left : left + width]


def _corner(canvas: Image.Image, picture: Image.Image) -> tuple[int, int]:
    return (canvas.width - picture.width) // 2, (canvas.height - picture.height) // 2


def _square(picture: Image.Image, cut: Cut) -> Image.Image:
    """Returns the picture on a square of the layout's colour, where it has one."""
    if cut.fill is None or picture.width == picture.height:
        return picture
    side = max(picture.size)
    square = Image.new("RGB", (side, side), cut.fill)
    square.paste(picture.convert("RGB"), _corner(square, picture))
    return square
