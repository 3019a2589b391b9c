"""The JSON shapes of the REST door, in and out. What they describe in openapi.json is what is checked."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from medreward.types import (
    Base64Image,
    Evidence,
    ImageSource,
    Item,
    Options,
    StoredImage,
    Thinking,
    TooLong,
    Turn,
    UrlImage,
)


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ImageObject(Shape):
    """An image in exactly one of three ways."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    base64: str | None = None
    sha256: str | None = Field(None, description="of bytes stored with PUT /v1/images")
    url: str | None = Field(None, description="only where the server allows it")

    @model_validator(mode="after")
    def has_one_source(self) -> Self:
        if sum(source is not None for source in (self.base64, self.sha256, self.url)) != 1:
            raise ValueError("an image is one of base64, sha256 and url")
        return self

    def to_source(self) -> ImageSource:
        if self.base64 is not None:
            return Base64Image(self.base64)
        if self.sha256 is not None:
            return StoredImage(self.sha256)
        return UrlImage(self.url or "")


#: Names of the two forms of an image in a validation error's path; no key of a body is called so.
IMAGE_FORMS: Final = ("(text)", "(object)")


def _image_form(written: object) -> str:
    """So that an error is about the form that was meant."""
    return IMAGE_FORMS[0] if isinstance(written, str) else IMAGE_FORMS[1]


Image = Annotated[
    Annotated[str, Tag(IMAGE_FORMS[0])] | Annotated[ImageObject, Tag(IMAGE_FORMS[1])],
    Discriminator(_image_form),
    Field(description="base64 of a JPEG, PNG, WebP or DICOM file, or an object"),
]


class TurnShape(Shape):
    role: Literal["system", "user", "assistant"]
    content: str


class OptionsShape(Shape):
    too_long: Literal["error", "cut_middle"] = Field(
        "error",
        description="for a response over the model's limit of tokens: an error, or cut out its middle, which is "
        "flagged as cut_middle and may raise its reward",
    )
    thinking: Literal["keep", "strip"] = Field(
        "keep",
        description="strip: leave out what stands between <think> and </think>, <thinking>, <reasoning>, <thought>, "
        "◁think▷ and the server's own tags",
    )

    def to_options(self) -> Options:
        return Options(TooLong(self.too_long), Thinking(self.thinking))


class Question(Shape):
    """What every form has: a question, its image and the turns before it."""

    image: Image | None = None
    images: list[Image] | None = None
    question: str
    history: list[TurnShape] | None = None

    @model_validator(mode="after")
    def names_its_images_once(self) -> Self:
        if self.image is not None and self.images is not None:
            raise ValueError("image and images exclude each other")
        return self

    def to_item(self, responses: list[str]) -> Item:
        images = self.images if self.images is not None else [self.image] if self.image is not None else []
        sources = tuple(Base64Image(image) if isinstance(image, str) else image.to_source() for image in images)
        turns = tuple(Turn(turn.role, turn.content) for turn in self.history or ())
        return Item(self.question, tuple(responses), sources, turns)


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
    options: OptionsShape = OptionsShape()


class TripleRequest(Question, Beside):
    """One triple."""

    response: str

    def to_items(self) -> tuple[Item, ...]:
        return (self.to_item([self.response]),)


class GroupedRequest(Beside):
    """Many triples, grouped by image and question."""

    items: list[ItemShape]

    def to_items(self) -> tuple[Item, ...]:
        return tuple(item.to_item(item.texts()) for item in self.items)


class Six(Shape):
    """A number for each dimension; null for one that the model has not."""

    accuracy: float | None
    relevance: float | None
    comprehensiveness: float | None
    creativity: float | None
    responsiveness: float | None
    overall: float | None


class ErrorShape(Shape):
    code: str
    message: str
    field: str


class ResultShape(Shape):
    item: int
    response: int
    status: Literal["ok", "error"]
    error: ErrorShape | None = None
    scores: Six | None
    logits: Six | None
    uncertainty: Six | None
    reward: float | None = Field(description="null without a score, and where a weight is on a dimension that is null")
    flags: list[str]
    cached: bool = False


class ModelRefShape(Shape):
    name: str
    version: str
    fingerprint: str
    runtime: str
    evidence: Evidence


class TimingsShape(Shape):
    decode: float
    queue: float
    inference: float
    total: float


class ScoreReply(Shape):
    id: str
    model: ModelRefShape
    results: list[ResultShape] = Field(description="ordered by item, then response; one for each response sent")
    timings_ms: TimingsShape


class StoredReply(Shape):
    sha256: str
    width: int
    height: int


class ModelReply(ModelRefShape):
    dimensions: list[str]
    default_weights: dict[str, float]
    backend: str
    device: str
    card: str | None


class Problem(Shape):
    """RFC 9457."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | None
    request_id: str
