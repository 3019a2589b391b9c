"""Images that a family cuts into tiles: what its image processor and its prompt make of the tiles of a layout.

The decoders have cut and resized them (encoding/cutting.py), so that of the image processor rescaling and normalising
are left.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from medreward.backends.base import ModelImage
from medreward.encoding.cutting import FILTERS
from medreward.encoding.sizes import Cut, Rule
from medreward.encoding.text import FileTokenizer
from medreward.encoding.tiles import Tiles
from medreward.errors import ConfigurationError

RULES: Final[Mapping[str, Rule]] = {
    "llava_next": "llava_next",
    "llava_onevision": "llava_onevision",
    "internvl": "internvl",
    "idefics3": "idefics3",
    "smolvlm": "idefics3",
}
OWN: Final[Mapping[Rule, str]] = {  # a setting that the rule's image processor has, and no other
    "llava_next": "image_grid_pinpoints",
    "llava_onevision": "image_grid_pinpoints",
    "internvl": "max_patches",
    "idefics3": "max_image_size",
}
SELECTED: Final[Mapping[Rule, str]] = {"llava_next": "default", "llava_onevision": "full"}  # features of the tower
ANYRES: Final = "anyres_max_"
FENCE: Final = "<fake_token_around_image>"  # of Idefics3: around the whole image, and in front of each tile
WHOLE: Final = "<global-img>"


class Tiling:
    """What becomes of tiles in one model."""

    def __init__(self, tiles: Tiles, model: Any, image_processor: Any, tokenizer: FileTokenizer) -> None:
        """Fails with a ConfigurationError where the model takes no tiles by this rule, or tiles of another size."""
        family = model.config.model_type
        if RULES.get(family) != tiles.rule:
            raise ConfigurationError(f"{family} takes no tiles by rule {tiles.rule}: [image] must say otherwise")
        side = tile_of(family, image_processor)
        if side != tiles.tile:
            raise ConfigurationError(f"tile of [image] must be {side}, as in the checkpoint's image processor")
        if image_processor.resample != FILTERS[tiles.rule]:
            raise ConfigurationError(f"the image processor resizes otherwise than rule {tiles.rule} does")
        self.tiles: Final = tiles
        self._image_processor = image_processor
        self._tokenizer = tokenizer
        self._image_token: int = model.config.image_token_id
        if tiles.rule == "idefics3" and FENCE not in tokenizer.control_tokens:
            raise ConfigurationError(f"the tokenizer has no token {FENCE}, which stands around each image")
        if tiles.grids:  # the model finds the grid of an image once more
            pinpoints = [[rows * side, columns * side] for rows, columns in tiles.grids]
            model.config.image_grid_pinpoints = pinpoints
        if tiles.rule == "llava_onevision":
            model.config.vision_aspect_ratio = f"{ANYRES}{tiles.most}"

    def inputs(self, image: ModelImage) -> Mapping[str, Tensor]:
        """Returns what the family's image processor makes of the image of which these are the tiles."""
        assert image.cut
        cut, processor = image.cut, self._image_processor
        values = []
        for tile in image.pixels.reshape(cut.tiles, cut.tile, cut.tile, 3):
            value = tile.transpose(2, 0, 1)
            if processor.do_rescale:
                value = processor.rescale(value, processor.rescale_factor)
            if processor.do_normalize:
                value = processor.normalize(value, processor.image_mean, processor.image_std)
            values.append(value)
        tensors = {"pixel_values": torch.from_numpy(np.array(values if cut.rule == "internvl" else [values]))}
        if cut.rule == "idefics3":
            tensors["pixel_attention_mask"] = torch.ones((1, cut.tiles, cut.tile, cut.tile), dtype=torch.long)
        if cut.rule in ("llava_next", "llava_onevision"):
            tensors["image_sizes"] = torch.tensor([(cut.height, cut.width)])
        if cut.rule == "llava_onevision":  # with any number but 1 the model expects no tiles beside the whole
            tensors["batch_num_images"] = torch.tensor([1 if cut.rows else 2])
        return tensors

    def written(self, cut: Cut) -> list[int]:
        """Returns the ids that stand for the image in a prompt."""
        if cut.rule != "idefics3":
            return [self._image_token] * cut.tokens
        tile = [self._image_token] * self.tiles.tokens
        ids = []
        if cut.whole != "none":
            for row in range(1, cut.rows + 1):
                for column in range(1, cut.columns + 1):
                    ids += [*self._mark(FENCE), *self._mark(f"<row_{row}_col_{column}>"), *tile]
                ids += self._tokenizer.encode("\n" if row < cut.rows else "\n\n")
        return [*ids, *self._mark(FENCE), *self._mark(WHOLE), *tile, *self._mark(FENCE)]

    def _mark(self, name: str) -> list[int]:
        id_ = self._tokenizer.control_tokens.get(name)
        return self._tokenizer.encode(name) if id_ is None else [id_]  # few tokenizers name the tiles of large grids


def section_of(config: Any, image_processor: Any) -> dict[str, Any] | None:
    """Returns the section [image] of a checkpoint as its own image processor cuts images, or None for a family that
    does not, or does so otherwise than a rule of ours says.
    """
    rule = RULES.get(config.model_type)
    side = tile_of(config.model_type, image_processor)
    if rule is None or not side or image_processor.resample != FILTERS[rule] or not image_processor.do_resize:
        return None
    if SELECTED.get(rule) not in (None, getattr(config, "vision_feature_select_strategy", None)):
        return None  # a tile has a feature more or less than patches
    vision = config.vision_config
    patches = (_side(vision.image_size) // _side(vision.patch_size)) ** 2
    section: dict[str, Any] = {"fit": "tiles", "rule": rule, "tile": side, "tokens": patches}
    match rule:
        case "internvl":
            section["tokens"] = round(patches * config.downsample_ratio**2)
            section |= {"min_tiles": image_processor.min_patches, "max_tiles": image_processor.max_patches}
        case "idefics3":
            section["tokens"] = patches // config.scale_factor**2
            section["longest"] = image_processor.size["longest_edge"]
        case _:
            pinpoints = image_processor.image_grid_pinpoints
            if any(height % side or width % side for height, width in pinpoints):
                return None
            section["grids"] = [[height // side, width // side] for height, width in pinpoints]
    if rule == "llava_onevision":
        section["max_tiles"] = int(config.vision_aspect_ratio.removeprefix(ANYRES))
        section["fill"] = [int(mean * 255) for mean in image_processor.image_mean]
    return section


def tile_of(family: str, image_processor: Any) -> int:
    """Returns the width and height of a tile of the image processor, or 0 where it makes none that are square."""
    rule = RULES.get(family)
    if rule is None or not hasattr(image_processor, OWN[rule]):
        return 0
    match rule:
        case "idefics3":
            return int(image_processor.max_image_size["longest_edge"]) if image_processor.do_image_splitting else 0
        case "llava_next":
            size, crop = image_processor.size, image_processor.crop_size
            sides = {size.shortest_edge or size.height, size.shortest_edge or size.width, crop.height, crop.width}
        case "llava_onevision" | "internvl":
            sides = {image_processor.size.height, image_processor.size.width}
    return int(sides.pop() or 0) if len(sides) == 1 else 0


def _side(size: Any) -> int:
    return int(size if isinstance(size, int) else size[0])
