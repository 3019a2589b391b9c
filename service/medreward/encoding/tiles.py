"""How families of vision-language models cut an image into tiles: by its width and height alone, as their own image
processors in transformers do. So the cost of an image is known from its header.
"""

import math
from dataclasses import dataclass

from medreward.encoding.sizes import Cut, ImageSpec, Rule

Size = tuple[int, int]  # width, height
Grid = tuple[int, int]  # rows, columns


@dataclass(frozen=True, slots=True)
class Tiles:
    """The rule of a model that sees an image as tiles, within the bounds of its manifest."""

    rule: Rule
    tile: int  # width and height of a tile
    tokens: int  # of a tile
    grids: tuple[Grid, ...] = ()  # of the LLaVA families: those that an image may be brought to
    least: int = 1  # of InternVL: fewest tiles
    most: int = 1  # of InternVL: most tiles. Of LLaVA-OneVision: features of more tiles are brought down to so many
    longest: int = 1  # of Idefics3: the longer side of an image before it is cut
    fill: tuple[int, int, int] = (0, 0, 0)  # of LLaVA-OneVision: the colour around an image that is not alone

    @property
    def pixels(self) -> int:
        """The largest number of pixels that an image can have, all its tiles together."""
        return self.largest.pixels

    @property
    def largest(self) -> ImageSpec:
        """The layout that has the most tiles, and of several such that with the most tokens."""
        match self.rule:
            case "internvl":
                grids = self._grids()
            case "idefics3":
                return self.of(self.longest, self.longest)
            case _:
                grids = list(self.grids)
        specs = [self.of(columns * self.tile, rows * self.tile) for rows, columns in grids]
        return max(specs, key=lambda spec: (spec.pixels, spec.tokens))

    @property
    def heeds_others(self) -> bool:
        """Whether an image is seen otherwise where the model reads others with it."""
        return self.rule == "llava_onevision"

    def of(self, width: int, height: int, is_alone: bool = True) -> ImageSpec:
        """Returns the layout of an image of this width and height, alone or with others in one conversation."""
        match self.rule:
            case "llava_onevision" if not is_alone:
                tokens = self.tokens + 1
                cut = Cut(self.rule, self.tile, width, height, 0, 0, (), tokens, "first", self.fill)
            case "internvl":
                cut = self._internvl(width, height)
            case "idefics3":
                cut = self._idefics3(width, height)
            case _:
                cut = self._llava(width, height)
        return ImageSpec(self.tile, self.tile * cut.tiles, "tiles", cut)

    def _llava(self, width: int, height: int) -> Cut:
        """Of all grids, the image gets the one that keeps most of its pixels, and of several such the smallest. It
        fills the grid on two sides and has black on the others."""
        rows, columns = max(self.grids, key=lambda grid: self._kept(width, height, grid))
        across, down = columns * self.tile, rows * self.tile
        if across / width < down / height:
            inner = across, min(math.ceil(height * (across / width)), down)
        else:
            inner = min(math.ceil(width * (down / height)), across), down
        tokens = self.tokens + self._features(width, height, rows, columns)
        return Cut(self.rule, self.tile, width, height, rows, columns, (inner,), tokens, "first")

    def _kept(self, width: int, height: int, grid: Grid) -> tuple[int, int]:
        across, down = grid[1] * self.tile, grid[0] * self.tile
        scale = min(across / width, down / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - across * down

    def _features(self, width: int, height: int, rows: int, columns: int) -> int:
        """Returns the tokens of the tiles: those of the black around the image are left out, and each row of them ends
        with one more."""
        side = math.isqrt(self.tokens)
        down, across = rows * side, columns * side
        if width / height > across / down:
            down -= (down - int(round(height * (across / width), 7))) // 2 * 2
        else:
            across -= (across - int(round(width * (down / height), 7))) // 2 * 2
        if self.rule == "llava_onevision":
            ratio = math.sqrt(down * across / (self.most * side**2))
            if ratio > 1.1:
                down, across = int(down // ratio), int(across // ratio)
        return down * across + down

    def _grids(self) -> list[Grid]:
        """Returns InternVL's grids: by their number of tiles, and among equals by their number of columns."""
        sides = range(1, self.most + 1)
        grids = [(rows, columns) for columns in sides for rows in sides if self.least <= rows * columns <= self.most]
        return sorted(grids, key=lambda grid: grid[0] * grid[1])

    def _internvl(self, width: int, height: int) -> Cut:
        """The image gets the grid whose shape is nearest to its own. Of grids of one shape it gets the one of most
        tiles, as long as the grid has less than twice its pixels."""
        best, nearest = (1, 1), math.inf
        for rows, columns in self._grids():
            apart = abs(width / height - columns / rows)
            is_as_near = apart == nearest and width * height > 0.5 * self.tile * self.tile * columns * rows
            if apart < nearest or is_as_near:
                best, nearest = (rows, columns), apart
        rows, columns = best
        tiles = rows * columns
        tokens = (tiles + (tiles > 1)) * self.tokens
        resized = ((columns * self.tile, rows * self.tile),)
        return Cut(self.rule, self.tile, width, height, rows, columns, resized, tokens, "last" if tiles > 1 else "none")

    def _idefics3(self, width: int, height: int) -> Cut:
        """The longer side becomes `longest`, then both sides are brought up to whole tiles."""
        shape = width / height
        if width >= height:
            first = self.longest, _even(int(self.longest / shape))
        else:
            first = _even(int(self.longest * shape)), self.longest
        shape = first[0] / first[1]
        if first[0] >= first[1]:
            across = self._whole_tiles(first[0])
            second = across, self._whole_tiles(int(across / shape))
        else:
            down = self._whole_tiles(first[1])
            second = self._whole_tiles(int(down * shape)), down
        columns, rows = second[0] // self.tile, second[1] // self.tile
        is_one = columns == rows == 1
        # In front of each tile stand two marks and behind each row a line end; three more stand around the whole.
        tokens = self.tokens + 3 + (0 if is_one else rows * (columns * (self.tokens + 2) + 1))
        resized = (first, second)
        return Cut(self.rule, self.tile, width, height, rows, columns, resized, tokens, "none" if is_one else "last")

    def _whole_tiles(self, side: int) -> int:
        return math.ceil(side / self.tile) * self.tile


def _even(side: int) -> int:
    """Returns the side, or the next even number; at least 1."""
    return max(1, side + side % 2)
