"""`model.toml`: everything that decides a score, and what a reader must know about it."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from medreward.artifacts.toml import parse_toml, read_toml
from medreward.encoding.thinking import Pair, ThinkingTags
from medreward.types import DIMENSIONS, Evidence

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Image(Section):
    """How every image is brought to the model's one size."""

    width: PositiveInt
    height: PositiveInt
    fit: Literal["pad", "stretch"] = "pad"
    required: bool = False
    preprocessing: Literal[1] = 1  # version of the rules in encoding/image.py


class ImageOfOwnSize(Section):
    """How each image is brought to a size of its own, rounded and within bounds, for models that take any size."""

    fit: Literal["own"]
    min_pixels: PositiveInt
    max_pixels: Annotated[int, Field(gt=0, le=4096**2)]  # what any published processor allows
    multiple: PositiveInt  # of each side: what is one token to the model
    required: bool = False
    preprocessing: Literal[1] = 1

    @model_validator(mode="after")
    def has_room_for_a_token(self) -> Self:
        if not self.multiple**2 <= self.max_pixels >= self.min_pixels:
            raise ValueError("max_pixels must hold multiple x multiple pixels, and at least min_pixels")
        return self


def _image_section(image: Any) -> Any:
    """Returns the section that `fit` asks for. pydantic's own union would report the errors of both sections."""
    if not isinstance(image, dict):
        return image
    return (ImageOfOwnSize if image.get("fit") == "own" else Image).model_validate(image)


class Text(Section):
    """The template in pieces: names of control tokens, plain text, and the places of the user's texts."""

    tokenizer: FileName | None = None
    prompt: tuple[str, ...]  # holds "{question}" once, and "{image}" once where an image is tokens among tokens
    answer: tuple[str, ...]  # holds "{response}" once
    max_tokens: PositiveInt  # prompt and answer together
    thinking_tags: tuple[Pair, ...] = ()  # beside the known ones: what `thinking: strip` leaves out

    @model_validator(mode="after")
    def has_its_places(self) -> Self:
        if self.prompt.count("{question}") != 1 or self.answer.count("{response}") != 1:
            raise ValueError("the prompt needs {question} once and the answer {response} once")
        ThinkingTags(self.thinking_tags)
        return self


class Calibration(Section):
    """How logits become scores: `score = sigmoid((logit - median) / scale)`."""

    median: float
    scale: PositiveFloat


class Onnx(Section):
    """The two graphs of an ONNX model: an image to visual tokens, and these with texts to logits."""

    image_graph: FileName
    score_graph: FileName


class Reading(Section):
    """How an answer is read. What has been said is not read again, and a long answer is read in windows.

    The logits of the windows are averaged, and those that answer the question weigh most.
    """

    run: Annotated[int, Field(ge=2)]  # tokens that are left out if they have stood in the answer before, in this order
    window: PositiveInt  # tokens of the answer that are read together
    step: PositiveInt  # from the start of a window to that of the next

    @model_validator(mode="after")
    def leaves_nothing_out(self) -> Self:
        if self.step > self.window:
            raise ValueError("step must not be above window, as what lies between two windows would never be read")
        return self


class Verbaliser(Section):
    """A question for each dimension in place of a head: the logit is that of `yes` less that of `no`."""

    ask: tuple[str, ...]  # follows the answer; holds "{rubric}" once
    yes: str
    no: str
    rubrics: Literal[1] = 1  # version of the wording in backends/torch_vlm/verbaliser.py


class Vlm(Section):
    """A transformers image-text-to-text checkpoint, and what turns its last hidden states into logits."""

    image: tuple[str, ...]  # what stands where the prompt says "{image}", and nowhere without one
    head: FileName | None = None  # read at the last token of the answer
    verbaliser: Verbaliser | None = None

    @model_validator(mode="after")
    def is_read_in_one_way(self) -> Self:
        if (self.head is None) == (self.verbaliser is None):
            raise ValueError("[vlm] needs either a head or a verbaliser")
        if self.verbaliser and self.verbaliser.ask.count("{rubric}") != 1:
            raise ValueError("ask needs {rubric} once")
        return self


class Training(Section):
    """How `medreward train` made a model out of another one; for readers, not in the fingerprint."""

    base: str  # its fingerprint, or the name of one that has none
    data: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]
    seed: int
    steps: PositiveInt
    versions: tuple[str, ...]  # of the libraries


class Manifest(Section):
    """All of `model.toml`. The order of the checks decides which fault is reported."""

    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]*$")]
    version: str
    family: str = "unknown"  # of the architecture, for readers
    dimensions: tuple[str, ...] = DIMENSIONS  # in the order of its logits
    runtime: Literal["onnx", "torch_vlm", "fake"]
    evidence: Evidence
    license: str
    provenance: str
    uncertainty: str | None = None  # what it is for this model, and its range; for readers, not in the fingerprint
    card: FileName | None = None
    golden: FileName | None = None
    measured: FileName | None = None  # the figures behind the card
    files: dict[FileName, Sha256] = {}
    image: Annotated[Image | ImageOfOwnSize, BeforeValidator(_image_section)]
    text: Text
    onnx: Onnx | None = None
    reading: Reading | None = None
    vlm: Vlm | None = None
    training: Training | None = None
    weights: dict[str, float]
    calibration: dict[str, Calibration]

    @model_validator(mode="after")
    def is_whole(self) -> Self:
        if not self.dimensions or self.dimensions != tuple(d for d in DIMENSIONS if d in self.dimensions):
            raise ValueError(f"dimensions must be some of {', '.join(DIMENSIONS)}, in this order")
        if set(self.calibration) != set(self.dimensions):
            raise ValueError("calibration must name each of the model's dimensions, and no other")
        if not set(self.weights) <= set(self.dimensions):
            raise ValueError("weights may only name the model's dimensions")
        if self.runtime == "onnx" and not (self.onnx and self.text.tokenizer):
            raise ValueError("runtime onnx needs [onnx] and a tokenizer under [text]")
        if isinstance(self.image, ImageOfOwnSize) and not self.vlm:
            raise ValueError("fit own is for models with [vlm]")
        if self.runtime == "torch_vlm" and not (self.vlm and self.text.tokenizer):
            raise ValueError("runtime torch_vlm needs [vlm] and a tokenizer under [text]")
        if self.text.prompt.count("{image}") != (1 if self.vlm else 0):
            raise ValueError("the prompt needs {image} once with [vlm], and not at all without")
        if self.vlm and len(self.text.answer) == 1:
            raise ValueError(
                "with [vlm] the answer needs a piece beside {response}: an empty one must leave a token to read"
            )
        if self.reading and (
            self.runtime != "onnx" or len(self.text.answer) != 2 or self.text.answer[0] != "{response}"
        ):
            raise ValueError("[reading] is for runtime onnx and an answer of {response} and one closing token")
        if self.reading and "responsiveness" not in self.dimensions:
            raise ValueError("[reading] weighs windows by responsiveness, which the model has to give")
        used = [self.text.tokenizer, self.card, self.golden, self.measured]
        if self.onnx:
            used += [self.onnx.image_graph, self.onnx.score_graph]
        if self.vlm:
            used += ["config.json", self.vlm.head]
        missing = sorted({name for name in used if name} - set(self.files))
        if missing:
            raise ValueError(f"no digest under [files] for {', '.join(missing)}")
        return self

    @property
    def one_size(self) -> Image:
        """The image section of a model that takes images of one size."""
        assert isinstance(self.image, Image)
        return self.image

    @cached_property
    def fingerprint(self) -> str:
        """The digest of all that decides a score: files, template, preprocessing, calibration, limits, weights."""
        decides = self.model_dump(mode="json", include={"runtime", "image", "text", "onnx", "weights", "calibration"})
        if not self.text.thinking_tags:  # a model without own tags has the fingerprint it had before there were any
            del decides["text"]["thinking_tags"]
        if self.reading:
            decides["reading"] = self.reading.model_dump(mode="json")
        if self.vlm:
            decides["vlm"] = self.vlm.model_dump(mode="json")
        beside = (self.card, self.golden, self.measured)
        decides["files"] = {name: digest for name, digest in self.files.items() if name not in beside}
        canonical = json.dumps(decides, sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    def with_thinking_tags(self, own: tuple[Pair, ...]) -> Self:
        """Returns this manifest with more tags, and so with another fingerprint; ValueError for a tag that it has."""
        tags = self.text.thinking_tags + own
        ThinkingTags(tags)
        more = self.model_copy(update={"text": self.text.model_copy(update={"thinking_tags": tags})})
        more.__dict__.pop("fingerprint", None)  # the copy has the cached one of the original
        return more


def read_manifest(path: Path) -> Manifest:
    """Returns the manifest in the file; fails where there is none or it is not whole."""
    return read_toml(path, Manifest, "manifest")


def parse_manifest(text: str, path: Path) -> Manifest:
    """Returns the manifest in the text. `path` is where it lies or would lie, for errors."""
    return parse_toml(text, path, Manifest)
