"""The JSON shapes of requests, which are checked by what openapi.json shows."""

from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from medreward.api.examples import GROUPED_EXAMPLE, RANK_EXAMPLE, TRIPLE_EXAMPLE
from medreward.api.fields import DEPARTMENT_CHARS, MOST_FRAMES, ItemPointers
from medreward.api.shape import Shape
from medreward.types import (
    Base64Image,
    Explain,
    FileSource,
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
