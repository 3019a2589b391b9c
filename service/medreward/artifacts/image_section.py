"""The section [image] of a manifest: how the model sees an image."""

import math
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from medreward.artifacts.toml import Section
from medreward.encoding.sizes import ImageSpec, OwnSize, Rule
from medreward.encoding.tiles import Tiles

Side = Annotated[int, Field(gt=0, le=64)]
Colour = Annotated[int, Field(ge=0, le=255)]

MOST_PIXELS: Final = 4096**2  # of one image: what any published processor allows
TILE_BOUNDS: Final[dict[Rule, tuple[str, ...]]] = {  # what a rule needs
    "llava_next": ("grids",),
    "llava_onevision": ("grids", "max_tiles", "fill"),
    "internvl": ("min_tiles", "max_tiles"),
    "idefics3": ("longest",),
}


class Image(Section):
    """How every image is brought to the model's one size."""

    width: PositiveInt
    height: PositiveInt
    fit: Literal["pad", "stretch"] = "pad"
    required: bool = False
    preprocessing: Literal[1] = 1  # version of the rules in encoding/image.py

    @property
    def sizes(self) -> ImageSpec:
        """The size of every image."""
        return ImageSpec(self.width, self.height, self.fit)


class ImageOfOwnSize(Section):
    """How each image is brought to a size of its own, rounded and within bounds, for models that take any size."""

    fit: Literal["own"]
    min_pixels: PositiveInt
    max_pixels: Annotated[int, Field(gt=0, le=MOST_PIXELS)]
    multiple: PositiveInt  # of each side: what is one token to the model
    required: bool = False
    preprocessing: Literal[1] = 1

    @model_validator(mode="after")
    def has_room_for_a_token(self) -> Self:
        if not self.multiple**2 <= self.max_pixels >= self.min_pixels:
            raise ValueError("max_pixels must hold multiple x multiple pixels, and at least min_pixels")
        return self

    @property
    def sizes(self) -> OwnSize:
        """The rule that gives each image its size."""
        return OwnSize(self.min_pixels, self.max_pixels, self.multiple)


class ImageOfTiles(Section):
    """How each image is cut into tiles by its shape, for families whose image processors do so."""

    fit: Literal["tiles"]
    rule: Rule
    tile: Annotated[int, Field(gt=0, le=2048)]  # width and height of a tile
    tokens: PositiveInt  # of a tile
    grids: Annotated[tuple[tuple[Side, Side], ...], Field(min_length=1, max_length=256)] | None = None  # of LLaVA's
    min_tiles: PositiveInt | None = None  # for internvl
    max_tiles: Annotated[int, Field(gt=0, le=64)] | None = None  # for internvl and llava_onevision
    longest: Annotated[int, Field(gt=0, le=4096)] | None = None  # for idefics3: of an image's longer side
    fill: tuple[Colour, Colour, Colour] | None = None  # for llava_onevision: around an image that is not alone
    required: bool = False
    preprocessing: Literal[1] = 1

    @model_validator(mode="after")
    def has_what_its_rule_needs(self) -> Self:
        given = {bound for bounds in TILE_BOUNDS.values() for bound in bounds if getattr(self, bound) is not None}
        if given != set(TILE_BOUNDS[self.rule]):
            raise ValueError(f"rule {self.rule} needs {', '.join(TILE_BOUNDS[self.rule])}, and no other bounds")
        if self.rule.startswith("llava") and math.isqrt(self.tokens) ** 2 != self.tokens:
            raise ValueError(f"rule {self.rule} needs tokens that fill a square")
        if self.rule == "internvl" and (self.min_tiles or 1) > (self.max_tiles or 1):
            raise ValueError("max_tiles must be at least min_tiles")
        if self.sizes.pixels > MOST_PIXELS:
            raise ValueError(f"the tiles of one image may have {MOST_PIXELS} pixels together")
        return self

    @property
    def sizes(self) -> Tiles:
        """The rule that gives each image its layout."""
        return Tiles(
            self.rule,
            self.tile,
            self.tokens,
            self.grids or (),
            self.min_tiles or 1,
            self.max_tiles or 1,
            self.longest or 1,
            self.fill or (0, 0, 0),
        )


def section_of(image: Any) -> Any:
    """Returns the section that `fit` asks for. pydantic's own union would report the errors of all sections."""
    if not isinstance(image, dict):
        return image
    sections: dict[Any, type[Section]] = {"own": ImageOfOwnSize, "tiles": ImageOfTiles}
    return sections.get(image.get("fit"), Image).model_validate(image)
