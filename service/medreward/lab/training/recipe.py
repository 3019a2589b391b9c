"""`recipe.toml`: everything a training run depends on besides its data."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from medreward.artifacts.toml import Section, read_toml


class Tower(Section):
    """Convolutions at 1/4, 1/8, 1/16 and 1/32 of the image's side, then self-attention over what is left."""

    side: PositiveInt = 192
    widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 384)
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2, 1)
    attention_layers: PositiveInt = 1
    start: str = ""  # a package with EfficientNet-Lite0's weights, whose convolutions stand in place of these
    fixed: Literal["nothing", "trunk", "all"] = "nothing"  # what is not learnt; of a start, the blocks up to 1/16
    views: PositiveInt = 1  # of each image, made once, where something is fixed; the first one is the image as it is


class Text(Section):
    """An encoder of BERT's form: a folder with config.json, model.safetensors, tokenizer.json, or a package of one."""

    encoder: str
    max_tokens: PositiveInt = 512
    train_tokens: PositiveInt = 128  # longer texts lose their middle while training
    buckets: tuple[PositiveInt, ...] = (18, 24, 32, 48, 80)
    frozen_layers: int = Field(0, ge=0)  # the first ones, which do not see the image


class Reading(Section):
    """As in the manifest, but for the stops, which are tokens here and their ids there."""

    run: int = Field(8, ge=2)
    window: PositiveInt = 128
    part: PositiveInt = 64
    stops: tuple[str, ...] = (".", "!", "?", ";")


class Phase(Section):
    """Ends at the step or the minute, whichever is reached first; the learning rate follows."""

    steps: NonNegativeInt
    minutes: PositiveFloat = 600.0
    images: PositiveInt  # in a batch
    questions: PositiveInt  # about each of them
    rate: PositiveFloat


class WarmUp(Phase):
    """The tower alone, on the questions its images can answer."""


class Pairs(Phase):
    """The whole model, on graded answers."""

    tower_rate: PositiveFloat  # of the tower, against `rate`
    attribute_weight: NonNegativeFloat = 0.2  # of the warm-up's loss, kept on beside the pairs
    grade_weight: NonNegativeFloat = 0.5  # of the regression, where a grade is known
    swaps: float = Field(0.5, ge=0, le=1)  # share of questions asked of two images, with the answers of both
    blanks: float = Field(0.08, ge=0, le=1)  # share of questions shown without the image
    texts: float = Field(0.02, ge=0, le=1)  # text-only groups, as a share of the others
    manner: float = Field(0.15, ge=0, le=1)  # groups about anything but right or wrong
    hacks: float = Field(0.0, ge=0, le=1)  # groups in which tricks stand beside right and wrong
    forms: float = Field(0.0, ge=0, le=1)  # groups in which right and wrong stand in many forms
    # How closely a dimension keeps to what the start says of plain answers.
    hold: dict[str, NonNegativeFloat] = Field(default_factory=dict)


class Recipe(Section):
    name: str
    version: str
    seed: int = 0
    threads: PositiveInt = 4  # of each batch
    side_by_side: PositiveInt = (
        1  # batches of a step, whose losses are averaged; faster than threads on a shared machine
    )
    precision: Literal["bf16", "fp32"] = "fp32"
    phantoms: int = Field(0, ge=0)  # images drawn for training
    images_of_a_set: int = Field(0, ge=0)  # that are learnt from; 0: all
    weight_decay: NonNegativeFloat = 0.05
    average: float = Field(0.999, ge=0, lt=1)  # decay of the weights' moving average, which is what is exported
    checkpoint_minutes: PositiveFloat = 5.0
    evaluate_minutes: PositiveFloat = 8.0
    weights: dict[str, float]  # of the dimensions in the reward
    license: str = "Apache-2.0"
    provenance: str
    start: str = ""  # folder of a served model whose weights go on; its tower too, unless that has a start of its own
    tower: Tower = Tower()
    text: Text
    reading: Reading = Reading()
    warm_up: WarmUp
    pairs: Pairs


def read_recipe(path: Path) -> Recipe:
    return read_toml(path, Recipe, "recipe")
