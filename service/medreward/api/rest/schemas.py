"""The JSON shapes of the REST door, of requests and of answers. Requests are checked by the shapes that openapi.json
shows."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from medreward.api.examples import GROUPED_EXAMPLE, PROBLEM_EXAMPLE, RANK_EXAMPLE, REPLY_EXAMPLE, TRIPLE_EXAMPLE
from medreward.api.fields import DEPARTMENT_CHARS, MOST_FRAMES, ItemPointers
from medreward.errors import ITEM_CODES, Code
from medreward.types import (
    Base64Image,
    Evidence,
    Explain,
    FileSource,
    Flag,
    FrameImage,
    ImageSource,
    Item,
    Options,
    StoredImage,
    Thinking,
    TooLong,
    Turn,
    UrlImage,
    Viewpoints,
    step_ends,
)

#: What each flag means for the response that has it.
FLAGS: Final[dict[Flag, str]] = {
    Flag.NO_IMAGE: "The item has no image: the model read the question and the response alone.",
    Flag.CUT_MIDDLE: "The response was too long, and the middle of it was left out, as options.too_long asked. "
    "The score is that of what was left, and may be higher than that of a shorter answer that says the same.",
    Flag.THINKING_STRIPPED: "Thinking was taken out of the response before it was scored, as options.thinking asked.",
    Flag.CONTROL_TOKENS: "The question, a turn or the response holds the text of one of the model's control tokens. "
    "It was read as plain text.",
    Flag.RAW_TEXT: "The text came by a trainer's route and could not be taken apart into question and response with "
    "certainty. It was scored as it was; docs/trainers/wire.md says when that happens.",
    Flag.EMPTY_RESPONSE: "The response is empty, or nothing but white space. It is scored all the same.",
    Flag.HISTORY_IGNORED: "The model reads no turns before the question: it was scored without them, because the "
    "server runs with --unread-history ignore.",
    Flag.OUT_OF_SCOPE: "The image is unlike those that the model learnt from, so its scores mean little. "
    "Only models that know their scope set it.",
}


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


#: The names of the two forms of a value in the path of a validation error. No key of a body has such a name.
FORMS: Final = ("(text)", "(other)")


def _frames_form(value: object) -> str:
    """Returns the form that was meant, so that an error is about it and not about the other."""
    return FORMS[1] if isinstance(value, list) else FORMS[0]


FramesShape = Annotated[
    Annotated[int, Field(ge=1, le=MOST_FRAMES), Tag(FORMS[0])]
    | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MOST_FRAMES), Tag(FORMS[1])],
    Discriminator(_frames_form),
]


class ImageObject(Shape):
    """An image in exactly one of three ways."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 2})

    base64: str | None = None
    sha256: str | None = Field(None, description="of bytes stored with PUT /v1/images")
    url: str | None = Field(None, description="only where the server allows it")
    frames: FramesShape | None = Field(
        None,
        description="of a DICOM file of several frames, as that many images: how many that lie evenly over the file, "
        "or the numbers of those wanted, counted from 0; without it, the middle one",
    )

    @model_validator(mode="after")
    def has_one_source(self) -> Self:
        if sum(source is not None for source in (self.base64, self.sha256, self.url)) != 1:
            raise ValueError("an image is one of base64, sha256 and url")
        return self

    def to_sources(self) -> list[ImageSource]:
        """Returns the image, or an image for each of its frames that are wanted."""
        file: FileSource = UrlImage(self.url or "")
        if self.base64 is not None:
            file = Base64Image(self.base64)
        elif self.sha256 is not None:
            file = StoredImage(self.sha256)
        if self.frames is None:
            return [file]
        if isinstance(self.frames, int):
            return [FrameImage(file, place, self.frames) for place in range(self.frames)]
        return [FrameImage(file, number) for number in self.frames]


def _form(value: object) -> str:
    """Returns the form that was meant, so that an error is about it and not about the other."""
    return FORMS[0] if isinstance(value, str) else FORMS[1]


Image = Annotated[
    Annotated[str, Tag(FORMS[0])] | Annotated[ImageObject, Tag(FORMS[1])],
    Discriminator(_form),
    Field(description="base64 of a JPEG, PNG, WebP or DICOM file, or an object"),
]


class PartShape(Shape):
    """A text, or an image of the item by its place."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    text: str | None = None
    image: int | None = Field(None, description="place of the image among the item's images, counted from 0", ge=0)

    @model_validator(mode="after")
    def is_one_of_both(self) -> Self:
        if (self.text is None) == (self.image is None):
            raise ValueError("a part is either a text or an image")
        return self

    def to_part(self) -> str | int:
        return self.text if self.text is not None else self.image or 0


Content = Annotated[
    Annotated[str, Tag(FORMS[0])] | Annotated[list[PartShape], Tag(FORMS[1])],
    Discriminator(_form),
    Field(description="a text, or texts and images in their order"),
]


class TurnShape(Shape):
    """A turn before the question: perhaps one of the system, then user and assistant take turns."""

    role: Literal["system", "user", "assistant"]
    content: Content

    def to_turn(self) -> Turn:
        content = self.content if isinstance(self.content, str) else tuple(part.to_part() for part in self.content)
        return Turn(self.role, content)


StepsShape = Annotated[
    Annotated[Literal["none", "sentences", "paragraphs"], Tag(FORMS[0])] | Annotated[list[int], Tag(FORMS[1])],
    Discriminator(_form),
]


class OptionsShape(Shape):
    too_long: Literal["error", "cut_middle"] = Field(
        "error",
        description="for a response over the model's limit of tokens: an error, or cut out its middle, which is "
        "flagged as cut_middle and may raise its reward",
    )
    thinking: Literal["keep", "strip", "both"] = Field(
        "keep",
        description="strip: leave out what stands between <think> and </think>, <thinking>, <reasoning>, <thought>, "
        "◁think▷ and the server's own tags. both: keep it, and say in without_thinking what strip would have given",
    )
    explain: Literal["none", "sentences"] = Field(
        "none", description="sentences: say for each sentence of a response what it adds to its numbers"
    )
    steps: StepsShape = Field(
        "none",
        description="sentences, paragraphs, or the places behind which steps end, rising, in Unicode characters: give "
        "the numbers of each response cut there, as if it ended so",
    )

    viewpoints: Literal["none", "all"] = Field(
        "none", description="all: say for each response what its reward is under each viewpoint of the model"
    )

    def to_options(self) -> Options:
        return Options(
            TooLong(self.too_long),
            Thinking(self.thinking),
            Explain(self.explain),
            step_ends(self.steps),
            Viewpoints(self.viewpoints),
        )


class Question(Shape):
    """What every form has: a question, its images and the turns before it."""

    image: Image | None = None
    images: list[Image] | None = Field(
        None, description="instead of image; those that no turn shows stand before the question, in this order"
    )
    question: str
    history: list[TurnShape] | None = Field(None, description="the turns before the question")
    department: str = Field(
        "",
        max_length=DEPARTMENT_CHARS,
        description="whose expert scores, where the model has one; whose thresholds decide, where a policy names it",
    )

    @model_validator(mode="after")
    def names_its_images_once(self) -> Self:
        if self.image is not None and self.images is not None:
            raise ValueError("image and images exclude each other")
        return self

    def pointers(self, item: str, response: str | None) -> ItemPointers:
        return ItemPointers(item, "images/0" if self.images is not None else "image", response)

    def texts(self) -> list[str]:
        """Returns the responses."""
        raise NotImplementedError

    def to_item(self) -> Item:
        images = self.images if self.images is not None else [self.image] if self.image is not None else []
        listed = [[Base64Image(image)] if isinstance(image, str) else image.to_sources() for image in images]
        sources = tuple(source for own in listed for source in own)
        turns = tuple(turn.to_turn() for turn in self.history or ())
        return Item(self.question, tuple(self.texts()), sources, turns, department=self.department)


class ItemShape(Question):
    """One image, one question, any number of responses."""

    responses: list[str] | None = None
    response: str | None = Field(None, description="a group of one")

    @model_validator(mode="after")
    def names_its_responses_once(self) -> Self:
        if (self.response is None) == (self.responses is None):
            raise ValueError("an item has either responses or response")
        return self

    def texts(self) -> list[str]:
        return self.responses if self.responses is not None else [self.response or ""]


class Beside(Shape):
    weights: dict[str, float] | None = Field(None, description="dimension to weight; one not named weighs 0")
    viewpoint: str | None = Field(
        None, description="name of a viewpoint of the model, whose weights make the reward; not beside weights"
    )
    options: OptionsShape = OptionsShape()


class TripleRequest(Question, Beside):
    """One triple."""

    model_config = ConfigDict(json_schema_extra={"example": TRIPLE_EXAMPLE})

    response: str

    def texts(self) -> list[str]:
        return [self.response]


class RankRequest(Question, Beside):
    """One image, one question and the responses to rank: an item of the grouped form by itself."""

    model_config = ConfigDict(json_schema_extra={"example": RANK_EXAMPLE})

    responses: list[str] = Field(min_length=1)

    def texts(self) -> list[str]:
        return self.responses


class GroupedRequest(Beside):
    """Many triples, grouped by image and question."""

    model_config = ConfigDict(json_schema_extra={"example": GROUPED_EXAMPLE})

    items: list[ItemShape]


class Six(Shape):
    """A number for each dimension; null for one that the model has not."""

    accuracy: float | None
    relevance: float | None
    comprehensiveness: float | None
    creativity: float | None
    responsiveness: float | None
    overall: float | None


class ErrorShape(Shape):
    code: Code = Field(description=f"one of {', '.join(ITEM_CODES)}")
    message: str
    field: str = Field(description="JSON pointer into the request")


class ContributionShape(Shape):
    """What one sentence adds to its response: the response's numbers less those of the response without it."""

    start: int = Field(description="of the sentence in the response as it was sent, in Unicode characters")
    end: int = Field(description="just behind its last character")
    logits: Six | None = Field(description="null where the response without the sentence was not scored")
    reward: float | None
    error: ErrorShape | None = Field(None, description="why the response without the sentence was not scored")


class StepShape(Shape):
    """The numbers of a response that is cut at the end of a step, as /score gives them to the cut text by itself."""

    end: int = Field(description="just behind the step's last character, in Unicode characters of the response as sent")
    logits: Six | None = Field(description="null where the cut response was not scored")
    reward: float | None
    error: ErrorShape | None = Field(None, description="why the cut response was not scored")


class AsideShape(Shape):
    """The numbers of a response without its thoughts, as options.thinking: strip gives them."""

    scores: Six | None
    logits: Six | None
    uncertainty: Six | None
    reward: float | None
    flags: list[Flag] = Field(
        description="thinking_stripped where there were thoughts; without them, the numbers are the same"
    )
    error: ErrorShape | None = Field(None, description="why it was not scored")


class ResultShape(Shape):
    """Of one response: its numbers, or why there are none."""

    item: int
    response: int
    status: Literal["ok", "error"]
    error: ErrorShape | None = None
    scores: Six | None = Field(description="0 to 1: sigmoid((logit - median) / scale); 0.5 is the calibration's median")
    logits: Six | None = Field(
        description="any finite number: sigmoid(a - b) is the model's probability that answer a beats answer b to the "
        "same image and question"
    )
    uncertainty: Six | None = Field(
        description="how little the model stands behind each logit: 0 is sure, and more is less sure. It has no upper "
        "bound in general and is no probability of error; what it is for the model served stands in GET /v1/model. "
        "null where the model has none."
    )
    reward: float | None = Field(description="null without a score, and where a weight is on a dimension that is null")
    flags: list[Flag] = Field(description="\n".join(f"- `{flag}`: {about}" for flag, about in FLAGS.items()))
    cached: bool = Field(False, description="the numbers are those of the same triple, scored earlier")
    explain: list[ContributionShape] | None = Field(
        None,
        description="with options.explain: what each sentence adds. Not there where the response was not scored, nor "
        "where it was cut",
    )
    steps: list[StepShape] | None = Field(
        None,
        description="with options.steps, rising. Not there where the response was not scored, nor where it was cut",
    )
    without_thinking: AsideShape | None = Field(
        None, description="with options.thinking: both. Not there where the response was not scored"
    )
    expert: str | None = Field(
        None, description="the expert of the item's department, who gave the numbers; not there for the model itself"
    )
    viewpoints: dict[str, float] | None = Field(
        None, description="with options.viewpoints: the reward under each viewpoint; empty for a model without any"
    )
    viewpoint_spread: float | None = Field(
        None, description="the highest of these rewards less the lowest; null for a model without viewpoints"
    )


class ModelRefShape(Shape):
    name: str
    version: str
    fingerprint: str
    runtime: str
    evidence: Evidence = Field(
        description="of the model's training labels: physician (people), constructed (a rule), or none"
    )


class TimingsShape(Shape):
    """Milliseconds; of several items, the longest of each phase."""

    decode: float
    queue: float
    inference: float
    total: float


class ScoreReply(Shape):
    model_config = ConfigDict(json_schema_extra={"example": REPLY_EXAMPLE})

    id: str
    model: ModelRefShape
    results: list[ResultShape] = Field(description="ordered by item, then response; one for each response sent")
    timings_ms: TimingsShape


class StoredReply(Shape):
    sha256: str
    width: int
    height: int


class ViewpointShape(Shape):
    """A weighting of the dimensions that follows a guideline."""

    title: str
    source: str = Field(description="where the guideline can be read, or the words that the weights follow")
    weights: dict[str, float]


class ModelReply(ModelRefShape):
    dimensions: list[str]
    default_weights: dict[str, float]
    viewpoints: dict[str, ViewpointShape] = Field(description="by the name that a request gives as its viewpoint")
    experts: dict[str, list[str]] = Field(description="the departments that each expert of the model scores for")
    backend: str
    device: str
    uncertainty: str | None = Field(
        description="what a result's uncertainty is for this model, and its range; null where it has none"
    )
    card: str | None = Field(description="the model's card, Markdown")


class WorkerState(Shape):
    ready: bool
    pid: int | None = None
    device: int | None = None


class AuditState(Shape):
    file: str
    seq: int = Field(description="number of the last entry")
    hash: str = Field(description="of the last entry: keep it elsewhere, for `medreward audit verify --expect-last`")
    bytes: int = Field(description="size of the file: at audit_bytes it is renamed")
    waiting: int = Field(description="entries that wait for the disk")
    failing: bool = Field(description="whether the last entry could not be written")


class WatchState(Shape):
    """One thing that drift watches."""

    statistic: float = Field(description="how strong the evidence of a change is: 0 none, from 1 on an alarm")
    alarm: bool = Field(description="whether it raised an alarm since the last reset")
    change: str | None = Field(description="what has happened: lower, higher, narrower, wider, rarer, more often")
    reference: int = Field(description="answers that were learnt from as normal")
    missing: int = Field(description="answers that are still to be learnt from; 0 when it tests")
    tested: int


class ShadowState(Shape):
    of: str = Field(description="what decides a second time")
    share: float
    until: str
    ended: bool
    decisions: int = Field(description="decisions that it took")
    outcomes: dict[str, int] = Field(
        description="answers by the verdict served and the shadow's: allow_block and so on"
    )


class StateReply(Shape):
    """What the server is doing now."""

    ready: bool = Field(description="whether requests are taken, as /readyz says")
    reason: str | None = Field(description="why it is not ready: loading, draining, or what is wrong with its worker")
    requests_in_flight: int = Field(description="requests accepted and not yet answered; 0 ends a drain")
    cost_admitted: int = Field(description="of what may be queued and running: the limit is queue_cost")
    pixels_admitted: int = Field(description="of images that wait for a decoder: the limit is queue_pixels")
    triples_waiting: int
    triples_in_flight: int = Field(description="waiting or running; identical triples count once")
    request_bytes: int = Field(description="of all requests in memory: the limit is bodies_bytes")
    stored_bytes: int = Field(description="of images stored by hash: the limit is image_store_bytes")
    workers: list[WorkerState]
    audit: AuditState | None = Field(description="null without an audit log")
    drift: dict[str, WatchState] | None = Field(description="by what is watched; null where it is off")
    shadow: ShadowState | None


class SeriesShape(Shape):
    labels: dict[str, str]
    value: float


class NowReply(Shape):
    """What goes through the server now, for the page's operator view."""

    at: float = Field(description="when this was read, in seconds since 1970")
    version: str
    ready: bool = Field(description="whether requests are taken, as /readyz says")
    reason: str | None = Field(description="why it is not ready")
    metrics: dict[str, list[SeriesShape]] = Field(description="by the name of the metric: its series that are not 0")


class Problem(Shape):
    """RFC 9457."""

    model_config = ConfigDict(json_schema_extra={"example": PROBLEM_EXAMPLE})

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | None
    request_id: str
    trace_id: str | None = Field(None, description="the trace that shows the request; missing where there is none")
