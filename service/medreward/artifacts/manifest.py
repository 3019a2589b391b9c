"""`model.toml`: everything that decides a score, and what a reader must know about it."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from medreward.artifacts.image_section import Image, ImageOfOwnSize, ImageOfTiles, section_of
from medreward.artifacts.toml import Section, parse_toml, read_toml
from medreward.encoding.thinking import Pair, ThinkingTags
from medreward.types import DIMENSIONS, Evidence

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]


class Turns(Section):
    """How turns before the question are written: each begins and ends as the question and its answer do."""

    between: tuple[str, ...]  # from the end of an answer to what the user says next
    system: tuple[str, ...] = ()  # stands for what the prompt begins with; holds "{system}" once; empty: none is read
    images: Literal["in_place", "first"] = "in_place"  # where the images of a turn stand among its texts

    @model_validator(mode="after")
    def has_its_places(self) -> Self:
        if not self.between:
            raise ValueError("between needs at least one piece, or an answer would run on into the next question")
        if self.system and self.system.count("{system}") != 1:
            raise ValueError("system needs {system} once")
        return self


class Text(Section):
    """The template in pieces: names of control tokens, plain text, and the places of the user's texts."""

    tokenizer: FileName | None = None
    prompt: tuple[str, ...]  # holds "{question}" once, and "{image}" once where an image is tokens among tokens
    answer: tuple[str, ...]  # holds "{response}" once
    max_tokens: PositiveInt  # prompt and answer together
    thinking_tags: tuple[Pair, ...] = ()  # beside the known ones: what `thinking: strip` leaves out
    turns: Turns | None = None  # None for a model that reads no turns before the question

    @model_validator(mode="after")
    def has_its_places(self) -> Self:
        if self.prompt.count("{question}") != 1 or self.answer.count("{response}") != 1:
            raise ValueError("the prompt needs {question} once and the answer {response} once")
        before = self.prompt[self.prompt.index("{question}") - 1]
        if self.turns and "{image}" in self.prompt and before != "{image}":
            raise ValueError("with [text.turns] the prompt needs {image} directly before {question}")
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
    """How an answer is read. What has been said is not read again, and a long answer is read in parts.

    Each part holds whole sentences, or starts `step` tokens behind the one before. The logits of the parts are
    averaged, and those that answer the question weigh most.
    """

    run: Annotated[int, Field(ge=2)]  # tokens that are left out if they have stood in the answer before, in this order
    window: PositiveInt  # tokens of the answer that are read together
    step: PositiveInt | None = None  # from the start of a part to that of the next, each of them a window long
    part: PositiveInt | None = None  # in place of `step`: tokens of each part of an answer that no window holds
    stops: tuple[NonNegativeInt, ...] = ()  # ids of the tokens that end a sentence, and so may end a part

    @model_validator(mode="after")
    def leaves_nothing_out(self) -> Self:
        if (self.part is None) == (self.step is None):
            raise ValueError("give either step or part")
        if self.step is not None and self.step > self.window:
            raise ValueError("step must not be above window, as what lies between two windows would never be read")
        if self.part is not None and self.part > self.window:
            raise ValueError("part must not be above window, as no more than a window is read together")
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


class ExpertFiles(Section):
    """An expert on the model's base: a LoRA adapter and a head, for the departments that it knows."""

    departments: Annotated[tuple[str, ...], Field(min_length=1)]
    adapter: FileName
    adapter_config: FileName
    head: FileName
    calibration: dict[str, Calibration]


class Viewpoint(Section):
    """A weighting of the dimensions that has a name: what a guideline counts in an answer."""

    title: str  # of the guideline, for readers
    source: str  # where it can be read, or the words that the weights follow; for readers
    weights: Annotated[dict[str, float], Field(min_length=1)]


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
    files: dict[FileName, Sha256] = Field(default_factory=dict)
    image: Annotated[Image | ImageOfOwnSize | ImageOfTiles, BeforeValidator(section_of)]
    text: Text
    onnx: Onnx | None = None
    reading: Reading | None = None
    vlm: Vlm | None = None
    training: Training | None = None
    weights: dict[str, float]
    viewpoints: dict[Name, Viewpoint] = Field(default_factory=dict)
    experts: dict[Name, ExpertFiles] = Field(default_factory=dict)
    calibration: dict[str, Calibration]

    @model_validator(mode="after")
    def is_whole(self) -> Self:
        if not self.dimensions or self.dimensions != tuple(d for d in DIMENSIONS if d in self.dimensions):
            raise ValueError(f"dimensions must be some of {', '.join(DIMENSIONS)}, in this order")
        if set(self.calibration) != set(self.dimensions):
            raise ValueError("calibration must name each of the model's dimensions, and no other")
        if not set(self.weights) <= set(self.dimensions):
            raise ValueError("weights may only name the model's dimensions")
        for name, viewpoint in self.viewpoints.items():
            if not set(viewpoint.weights) <= set(self.dimensions):
                raise ValueError(f"the weights of viewpoint {name} may only name the model's dimensions")
        if self.runtime == "onnx" and not (self.onnx and self.text.tokenizer):
            raise ValueError("runtime onnx needs [onnx] and a tokenizer under [text]")
        if not isinstance(self.image, Image) and not self.vlm:
            raise ValueError(f"fit {self.image.fit} is for models with [vlm]")
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
        self._check_experts()
        used = [self.text.tokenizer, self.card, self.golden, self.measured]
        used += [file for each in self.experts.values() for file in (each.adapter, each.adapter_config, each.head)]
        if self.onnx:
            used += [self.onnx.image_graph, self.onnx.score_graph]
        if self.vlm:
            used += ["config.json", self.vlm.head]
        missing = sorted({name for name in used if name} - set(self.files))
        if missing:
            raise ValueError(f"no digest under [files] for {', '.join(missing)}")
        return self

    def _check_experts(self) -> None:
        """Fails for an expert without logits on the same dimensions, and for a department of two experts."""
        if self.experts and not (self.vlm and self.vlm.head):
            raise ValueError("[experts] are for models with [vlm] and a head, which scores for all other departments")
        for name, expert in self.experts.items():
            if set(expert.calibration) != set(self.dimensions):
                raise ValueError(f"calibration of expert {name} must name each of the model's dimensions, and no other")
        departments = [department for expert in self.experts.values() for department in expert.departments]
        if twice := sorted({department for department in departments if departments.count(department) > 1}):
            raise ValueError(f"two experts are for department {twice[0]}")

    def expert_of(self, department: str) -> str:
        """Returns the name of the expert that is for the department, empty where the general model is."""
        return next((name for name, expert in self.experts.items() if department in expert.departments), "")

    @property
    def one_size(self) -> Image:
        """The image section of a model that takes images of one size."""
        assert isinstance(self.image, Image)
        return self.image

    @cached_property
    def fingerprint(self) -> str:
        """The digest of all that decides a score: files, template, preprocessing, calibration, limits, weights,
        those of viewpoints included."""
        decides = self.model_dump(mode="json", include={"runtime", "image", "text", "onnx", "weights", "calibration"})
        if not self.text.thinking_tags:  # a model without own tags has the fingerprint it had before there were any
            del decides["text"]["thinking_tags"]
        if self.text.turns is None:  # likewise
            del decides["text"]["turns"]
        if self.reading:
            decides["reading"] = self.reading.model_dump(mode="json", exclude_defaults=True)
        if self.vlm:
            decides["vlm"] = self.vlm.model_dump(mode="json")
        if self.viewpoints:  # what a guideline is called, and where it stands, decides no reward
            decides["viewpoints"] = {name: viewpoint.weights for name, viewpoint in self.viewpoints.items()}
        if self.experts:
            decides["experts"] = {name: expert.model_dump(mode="json") for name, expert in self.experts.items()}
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
