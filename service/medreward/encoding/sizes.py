"""What is known of an image beside its pixels: what its header says, and the size at which a model sees it.

It needs no library that reads images, so that a worker's frames need none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

Kind = Literal["jpeg", "png", "webp", "dicom"]
Fit = Literal["pad", "stretch", "own", "tiles"]
Rule = Literal["llava_next", "llava_onevision", "internvl", "idefics3"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How one image is cut into tiles of one size. Where a family shows the whole image too, that is one tile more."""

    rule: Rule
    tile: int  # width and height of a tile
    width: int  # of the image itself
    height: int
    rows: int
    columns: int
    resized: tuple[tuple[int, int], ...]  # the widths and heights that it is brought to, one after the other
    tokens: int  # that stand for the image in a prompt, marks between its tiles included
    whole: Literal["first", "last", "none"]  # where the whole image stands among the tiles
    fill: tuple[int, int, int] | None = None  # colour that makes the whole image a square; None: it is stretched

    @property
    def tiles(self) -> int:
        """How many tiles there are, the whole image included."""
        return self.rows * self.columns + (self.whole != "none")


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """The size that a model wants to see. `pad` fills up with black, `stretch` distorts; with `own` the size is already
    that of the image, rounded; with `tiles` it is that of all tiles, which lie one below the other.
    """

    width: int
    height: int
    fit: Fit = "pad"
    cut: Cut | None = None  # with `tiles`

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def tokens(self) -> int:
        """The tokens of an image that is cut into tiles; 0 for others, whose tokens their pixels tell."""
        return self.cut.tokens if self.cut else 0

    def of(self, width: int, height: int, is_alone: bool = True) -> Self:
        """Returns the size for an image of this width and height: here the same for all."""
        return self


@dataclass(frozen=True, slots=True)
class OwnSize:
    """The bounds of a model that takes images of any size: each is seen at its own, as Qwen's processors compute it."""

    min_pixels: int
    max_pixels: int
    multiple: int  # of each side

    @property
    def pixels(self) -> int:
        """The largest number of pixels that an image can have."""
        return self.max_pixels

    def of(self, width: int, height: int, is_alone: bool = True) -> ImageSpec:
        """Returns the size for an image of this width and height: both sides rounded to the nearest multiple.

        An image beyond the bounds is scaled first, and its sides are rounded towards the inside of the bounds.
        """
        sides = [round(side / self.multiple) for side in (width, height)]
        if self._area(sides) > self.max_pixels:
            shrink = math.sqrt((height * width) / self.max_pixels)
            sides = [max(1, math.floor(side / shrink / self.multiple)) for side in (width, height)]
        elif self._area(sides) < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            sides = [math.ceil(side * grow / self.multiple) for side in (width, height)]
        while self._area(sides) > self.max_pixels:  # a strip whose short side can be no shorter
            sides[sides.index(max(sides))] -= 1
        return ImageSpec(sides[0] * self.multiple, sides[1] * self.multiple, "own")

    def _area(self, sides: Sequence[int]) -> int:
        return sides[0] * sides[1] * self.multiple**2


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file's first bytes say of it."""

    kind: Kind
    width: int  # as displayed, after EXIF orientation
    height: int
    frames: int = 1  # that the file says it has
    frame: int | None = None  # the one to show; by default the middle one
    is_alone: bool = True  # whether the model reads no other image with it

    @property
    def pixels(self) -> int:
        return self.width * self.height
