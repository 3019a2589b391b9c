"""The JSON shapes of answers: scores, stored images, the model, problems."""

from typing import Final, Literal

from pydantic import ConfigDict, Field

from medreward.api.examples import PROBLEM_EXAMPLE, REPLY_EXAMPLE
from medreward.api.shape import Shape
from medreward.errors import ITEM_CODES, Code
from medreward.types import Evidence, Flag

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
