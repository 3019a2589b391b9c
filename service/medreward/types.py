"""The words every room uses: what is asked, what is answered, and which model answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final, Literal, NamedTuple, Protocol, Self, get_args

from medreward.errors import ItemError

Dimension = Literal["accuracy", "relevance", "comprehensiveness", "creativity", "responsiveness", "overall"]
DIMENSIONS: Final[tuple[str, ...]] = get_args(Dimension)

#: Gives seconds that never go back, as time.monotonic does; tests hand in one that they can move.
Clock = Callable[[], float]

#: A number for each of DIMENSIONS, in their order; None for one that the model has not.
Six = tuple[float | None, ...]


class Lane(StrEnum):
    INTERACTIVE = "interactive"
    BULK = "bulk"


class TooLong(StrEnum):
    ERROR = "error"
    CUT_MIDDLE = "cut_middle"


class Thinking(StrEnum):
    KEEP = "keep"
    STRIP = "strip"
    BOTH = "both"  # kept, and beside it the numbers of the response without its thoughts


class Explain(StrEnum):
    NONE = "none"
    SENTENCES = "sentences"


class Steps(StrEnum):
    """Where the steps of a response end."""

    NONE = "none"
    SENTENCES = "sentences"
    PARAGRAPHS = "paragraphs"


#: Where steps end: by a rule, or just behind these characters of the response as it was sent.
StepEnds = Steps | tuple[int, ...]


def step_ends(given: str | Iterable[int]) -> StepEnds:
    """Returns the rule that a text names, or the numbers as they are. Raises ValueError for a text that names none."""
    return Steps(given) if isinstance(given, str) else tuple(given)


class Viewpoints(StrEnum):
    """Whether a reply has the reward under each viewpoint of the model."""

    NONE = "none"
    ALL = "all"


class Flag(StrEnum):
    NO_IMAGE = "no_image"
    CUT_MIDDLE = "cut_middle"
    THINKING_STRIPPED = "thinking_stripped"
    CONTROL_TOKENS = "control_tokens"
    RAW_TEXT = "raw_text"
    EMPTY_RESPONSE = "empty_response"
    OUT_OF_SCOPE = "out_of_scope"
    HISTORY_IGNORED = "history_ignored"


class Evidence(StrEnum):
    PHYSICIAN = "physician"
    CONSTRUCTED = "constructed"
    NONE = "none"


class SleepLevel(IntEnum):
    """What a sleeping server still holds: its weights in this machine's memory, or nothing of the model."""

    WEIGHTS_KEPT = 1
    NOTHING_KEPT = 2


class Verdict(StrEnum):
    ALLOW = "allow"
    REVIEW = "review"
    BLOCK = "block"
    UNSCORED = "unscored"  # never an implicit allow


#: The verdicts that drift watches. Not unscored, which says something about the server and nothing about the answers.
DECIDED: Final = (Verdict.ALLOW, Verdict.REVIEW, Verdict.BLOCK)
#: The names of all that drift watches, one by one.
WATCHED: Final = (*DIMENSIONS, *(f"flag_{flag}" for flag in Flag), *(f"verdict_{verdict}" for verdict in DECIDED))


@dataclass(frozen=True, slots=True)
class InlineImage:
    data: bytes


@dataclass(frozen=True, slots=True)
class Base64Image:
    text: str


@dataclass(frozen=True, slots=True)
class StoredImage:
    sha256: str


@dataclass(frozen=True, slots=True)
class UrlImage:
    url: str


@dataclass(frozen=True, slots=True)
class FileImage:
    path: str  # below --image-root


FileSource = InlineImage | Base64Image | StoredImage | UrlImage | FileImage


@dataclass(frozen=True, slots=True)
class FrameImage:
    """One frame of a file of several, counted from 0; or, with `of`, one of so many that lie evenly over the file."""

    file: FileSource
    frame: int
    of: int | None = None

    def number(self, frames: int) -> int:
        """Returns the frame's number in a file of so many. It may be too large."""
        return self.frame if self.of is None else (2 * self.frame + 1) * frames // (2 * self.of)


ImageSource = FileSource | FrameImage


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn before the question: its text, or its texts and images in their order. An image is named by its place
    among the item's images."""

    role: str
    content: str | tuple[str | int, ...]

    @property
    def parts(self) -> tuple[str | int, ...]:
        """Returns the texts and the places of images, whichever way the content was given."""
        return (self.content,) if isinstance(self.content, str) else self.content

    @property
    def images(self) -> tuple[int, ...]:
        """Returns the places of the images that the turn shows."""
        return tuple(part for part in self.parts if isinstance(part, int))

    def as_json(self) -> dict[str, object]:
        """Returns the turn as a request over REST has it."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": self.content}
        parts = [{"text": part} if isinstance(part, str) else {"image": part} for part in self.content]
        return {"role": self.role, "content": parts}

    @property
    def text(self) -> str:
        """Returns the turn's texts without its images."""
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Item:
    """One question about images (or about none), the turns before it, and the responses to score."""

    question: str
    responses: tuple[str, ...]
    images: tuple[ImageSource, ...] = ()
    history: tuple[Turn, ...] = ()
    is_raw: bool = False  # a text whose parts could not be told apart: its question may be empty
    department: str = ""  # whose expert scores, where the model has one for it


@dataclass(frozen=True, slots=True)
class Options:
    too_long: TooLong = TooLong.ERROR
    thinking: Thinking = Thinking.KEEP
    explain: Explain = Explain.NONE
    steps: StepEnds = Steps.NONE
    viewpoints: Viewpoints = Viewpoints.NONE

    @property
    def ask_for_more(self) -> bool:
        """Whether more than the response itself is to be scored."""
        return self.explain is not Explain.NONE or self.steps is not Steps.NONE or self.thinking is Thinking.BOTH

    def given(self) -> dict[str, Any]:
        """Returns the options that differ from their defaults, by name: an older server knows fewer of them."""
        usual = asdict(Options())
        return {name: value for name, value in asdict(self).items() if value != usual[name]}


class Phase(NamedTuple):
    """A part of the work of a batch, and when it was done, in seconds of time.monotonic."""

    name: str
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """A batch that was on a device, as traces show it: from when to when, what it did, and figures about it."""

    started: float
    ended: float
    phases: Sequence[Phase]
    figures: Mapping[str, str | int]


class Trace(Protocol):
    """Takes down what becomes of a request, for the trace that it belongs to. Times are seconds of time.monotonic."""

    @property
    def id(self) -> str:
        """The id of the trace, in hex."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that let another server continue the trace."""

    def phase(self, name: str, started: float, ended: float, batch: object = None) -> None:
        """Notes a phase of the request; with `batch`, what `of_batch` returned, it points to that batch."""

    def of_batch(self, batch: DeviceBatch, others: Iterable["Trace"]) -> object:
        """Notes a batch that this request was in, together with those of the other traces."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    id: str
    items: tuple[Item, ...]
    weights: Mapping[str, float] | None = None
    options: Options = Options()
    lane: Lane = Lane.BULK
    deadline_s: float | None = None
    fingerprint: str | None = None
    tenant: str = ""
    viewpoint: str | None = None  # of the model: its weights make the reward
    trace: Trace | None = field(default=None, compare=False)

    @property
    def triples(self) -> int:
        """How many responses the request has."""
        return sum(len(item.responses) for item in self.items)


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one sentence adds to a response: the response's numbers less those of the response without it.

    `start` and `end` are places in the response as it was sent, in characters. Where the response without the sentence
    was not scored there are no numbers, and `error` says why.
    """

    start: int
    end: int
    logits: Six | None
    reward: float | None
    error: ItemError | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The numbers of a response that ends behind its first `end` characters; where that was not scored, why."""

    end: int
    logits: Six | None
    reward: float | None
    error: ItemError | None = None


@dataclass(frozen=True, slots=True)
class Aside:
    """The numbers of a response without its thoughts. Where that was not scored, `error` says why."""

    logits: Six | None
    scores: Six | None
    uncertainty: Six | None
    reward: float | None
    flags: tuple[Flag, ...] = ()
    error: ItemError | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model says of one response."""

    item: int
    response: int
    logits: Six
    scores: Six
    uncertainty: Six | None
    reward: float | None  # None where it would need a dimension that the model has not
    flags: tuple[Flag, ...] = ()
    cached: bool = False
    explain: tuple[Contribution, ...] | None = None  # None where it was not asked for, or the response was cut
    steps: tuple[Step, ...] | None = None  # None where none were asked for, or the response was cut
    without_thinking: Aside | None = None  # with Thinking.BOTH
    expert: str = ""  # of the model, who gave the numbers; empty for the model itself
    viewpoints: Mapping[str, float] | None = None  # the reward under each viewpoint; None where it was not asked for

    @property
    def viewpoint_spread(self) -> float | None:
        """The highest reward under a viewpoint less the lowest; None where there is no reward under any."""
        rewards = (self.viewpoints or {}).values()
        return max(rewards) - min(rewards) if rewards else None


@dataclass(frozen=True, slots=True)
class Failed:
    """A response that was not scored, and why; never a number."""

    item: int
    response: int
    error: ItemError
    flags: tuple[Flag, ...] = ()


Result = Scored | Failed


@dataclass(slots=True)
class Timings:
    """Where a request's time went, in seconds; for several items, the longest of each phase."""

    decode: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """What runs a model. As text, as every reply has it: `onnx/cpu/fp32`."""

    backend: str
    device: str
    dtype: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Returns the runtime that the text of a reply or of a run names; parts that the text lacks are empty."""
        return cls(*[*text.split("/", 2), "", ""][:3])

    def __str__(self) -> str:
        return "/".join(filter(None, (self.backend, self.device, self.dtype)))


@dataclass(frozen=True, slots=True)
class ModelRef:
    name: str
    version: str
    fingerprint: str
    runtime: Runtime
    evidence: Evidence

    def as_json(self) -> dict[str, str]:
        """Returns the fields as texts, as a reply names the model."""
        return {
            "name": self.name,
            "version": self.version,
            "fingerprint": self.fingerprint,
            "runtime": str(self.runtime),
            "evidence": self.evidence,
        }


@dataclass(frozen=True, slots=True)
class ScoreResponse:
    id: str
    model: ModelRef
    results: tuple[Result, ...]
    timings: Timings = field(default_factory=Timings)
    images: tuple[tuple[str, ...], ...] = ()  # of each item: the SHA-256 of the image files that were opened for it
    weights: Mapping[str, float] = field(default_factory=dict)  # that made the rewards

    @classmethod
    def failed(cls, request: ScoreRequest, model: ModelRef, error: ItemError) -> Self:
        """Returns the response to a request that failed as a whole: each of its responses has this error."""
        places = ((i, j) for i, item in enumerate(request.items) for j in range(len(item.responses)))
        return cls(request.id, model, tuple(Failed(i, j, error) for i, j in places))
