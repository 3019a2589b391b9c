"""`vlm.toml`: what a fine-tuning of a vision-language model depends on besides its data."""

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from medreward.artifacts.toml import read_toml
from medreward.types import DIMENSIONS, Evidence

KIND: Final = "vlm"
Share = Annotated[float, Field(ge=0, lt=1)]
Dimension = Literal["accuracy", "relevance", "comprehensiveness", "creativity", "responsiveness", "overall"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Lora(Section):
    """An adapter beside the language model's linear layers; with `vision = "trained"`, beside the tower's too."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    modules: tuple[str, ...] = ()  # the last part of the layers' names; none: all linear layers


class Tune(Section):
    method: Literal["lora", "full"] = "lora"
    vision: Literal["frozen", "trained"] = "frozen"  # the tower and what joins it to the language model
    lora: Lora = Lora()


class Heads(Section):
    """What turns the state at an answer's end into six logits, as `docs/vlm.md` describes the file."""

    layers: Literal[1, 2] = 1
    inner: PositiveInt = 256  # width between two layers
    count: PositiveInt = 1  # of an ensemble
    seen: Annotated[float, Field(gt=0, le=1)] = 0.8  # share of the examples that each head of an ensemble learns from


class Learn(Section):
    steps: PositiveInt
    batch: PositiveInt = 16  # examples of a step, over all devices
    at_once: PositiveInt = 16  # examples of a forward; a step adds up as many as it needs
    rate: PositiveFloat = 1e-4
    head_rate: PositiveFloat = 1e-3  # of the heads, which start from nothing
    weight_decay: NonNegativeFloat = 0.01
    dtype: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the device has it, fp32 on a CPU
    gradient_checkpointing: bool = False
    share_prompts: bool = True  # image and prompt run once for both answers
    evaluate_steps: PositiveInt = 100
    patience: NonNegativeInt = 5  # readings of the dev part without a better one, until the run stops; 0: never
    checkpoint_minutes: NonNegativeFloat = 5.0
    threads: NonNegativeInt = 0  # of a CPU; 0: all cores. One is far faster on a machine that others use as well
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()


class Loss(Section):
    margin: NonNegativeFloat = 0.0  # by which the better answer must be ahead; a row's own margin counts more
    centring: NonNegativeFloat = 0.01  # weight of the squared sum of both logits, as pairs leave the level open
    graded: NonNegativeFloat = 1.0  # weight of graded answers beside pairs
    ties: Literal["half", "masked"] = "half"  # a tie says that both are as good, or nothing


class Data(Section):
    dev_share: Share = 0.1  # of the images: for the early stop
    held_share: Share = 0.1  # of the images: for the calibration and the card
    preference: tuple[Dimension, ...] = ("overall",)  # what a row without dimensions prefers an answer for
    contaminated: Literal["refuse", "drop"] = "refuse"  # rows that the benchmark has too
    compare: tuple[Literal["image", "text"], ...] = ("image", "text")  # by which a case is known again

    @model_validator(mode="after")
    def leaves_something_to_learn(self) -> Self:
        if self.dev_share + self.held_share > 0.9:
            raise ValueError("dev_share and held_share leave less than a tenth of the images to learn from")
        return self


class Export(Section):
    """What a model must reach to be exported."""

    min_gain: float = 0.02  # by how much the image must raise the share of pairs right, of 1
    dimension: Dimension = "accuracy"  # that this is asked of
    max_held: PositiveInt = 2000  # pairs of the held part that are measured
    probed: NonNegativeInt = 60  # of these: their answers are said otherwise, in some seventy ways each


class Recipe(Section):
    kind: Literal["vlm"]
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]*$")]
    version: str
    base: str  # a directory, or org/name@revision
    image_size: PositiveInt | None = None  # of a base without model.toml, as `models adopt --image-size`
    evidence: Evidence
    license: str
    provenance: str
    weights: dict[str, float]  # of the dimensions in the reward
    seed: int = 0
    tune: Tune = Tune()
    heads: Heads = Heads()
    learn: Learn
    loss: Loss = Loss()
    data: Data = Data()
    export: Export = Export()

    @model_validator(mode="after")
    def can_be_run(self) -> Self:
        if self.learn.batch % self.learn.at_once and self.learn.at_once < self.learn.batch:
            raise ValueError("learn.batch must be a multiple of learn.at_once")
        if strange := sorted(set(self.weights) - set(DIMENSIONS)):
            raise ValueError(f"weights name {strange[0]!r}, which is no dimension")
        if not self.data.held_share:
            raise ValueError("data.held_share must be above 0: calibration and card are taken on that part")
        return self


def is_vlm(path: Path) -> bool:
    """Returns whether the file says that it is such a recipe. A file that is no TOML says nothing."""
    try:
        return tomllib.loads(path.read_text("utf-8")).get("kind") == KIND
    except (OSError, ValueError):
        return False


def read_recipe(path: Path) -> Recipe:
    """Returns the recipe in the file; fails with one line for what is missing, unknown or out of bounds."""
    return read_toml(path, Recipe, "recipe")
