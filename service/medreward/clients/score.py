"""What a client returns: a Score or a Screened for each response, in one Reply for each call."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from medreward.types import ModelRef, ScoreRequest, Verdict

#: By dimension; None for one that the model has not.
Numbers = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one sentence adds to its response: the response's numbers less those of the response without it.

    The sentence is `response[start:end]`. Where the response without it was not scored, there is `error` instead.
    """

    start: int
    end: int
    logits: Numbers | None = None
    reward: float | None = None
    error: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The numbers of `response[:end]`, as if the response ended there; or an error, and then no number."""

    end: int
    logits: Numbers | None = None
    reward: float | None = None
    error: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """The numbers of one response and the reward that is made of them; or an error, and then no number.

    `error` is the code that says why there is no score. A dimension that the model has not is None, and so is a reward
    with a weight on such a dimension.
    """

    reward: float | None = None
    scores: Numbers | None = None
    logits: Numbers | None = None
    uncertainty: Numbers | None = None
    flags: tuple[str, ...] = ()
    error: str | None = None
    message: str | None = None
    explain: tuple[Contribution, ...] | None = None  # with explain="sentences"; None where the response was cut
    steps: tuple[Step, ...] | None = None  # with steps=...; None where the response was cut
    without_thinking: "Score | None" = None  # with thinking="both": what thinking="strip" gives
    expert: str = ""  # of the model, who gave the numbers; empty for the model itself
    viewpoints: Mapping[str, float] | None = None  # with viewpoints="all": the reward under each viewpoint of the model
    viewpoint_spread: float | None = None  # the highest of these less the lowest; None for a model without viewpoints
    # Where in the call the error is, and whether the server knew the answer: how it came about, not what it says.
    field: str | None = dataclasses.field(default=None, compare=False)
    cached: bool = dataclasses.field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Best:
    """How the responses to one question stand to each other, with the Score of each.

    `order`, `ties` and `unscored` hold places in the responses, counted from 0. The probabilities are None with fewer
    than two scores.
    """

    response: str | None  # the best one; None where none was scored
    scores: tuple[Score, ...]  # of the responses as they were given
    order: tuple[int, ...]  # the best first; of equal rewards the one given first; unscored last
    ties: tuple[tuple[int, ...], ...]  # those that have one and the same reward
    unscored: tuple[int, ...]  # the error of their scores says why
    first_beats_second: float | None  # by the weighted mean of what the logits of the dimensions say
    by_dimension: Numbers | None  # the same for each dimension


@dataclass(frozen=True, slots=True)
class Reason:
    """The rule that decided; `otherwise` where none did. A rule about a flag has no value and no threshold."""

    rule: str
    dimension: str | None = None
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """Which version of which policy decided, and the sha256 of its file."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Screened(Score):
    """A Score with the verdict on its response. Without a verdict of the server it is unscored, and `error` says why:
    then there is neither a policy nor a decision.
    """

    verdict: Verdict = Verdict.UNSCORED
    reasons: tuple[Reason, ...] = ()
    margin: float | None = None  # how far the value is from the threshold that decided, in the value's own unit
    policy: Policy | None = None
    decision_id: str | None = None

    @property
    def allowed(self) -> bool:
        """Whether the verdict is allow: nothing else may be shown without a person's look at it."""
        return self.verdict is Verdict.ALLOW


@dataclass(frozen=True, slots=True)
class ScreenRequest(ScoreRequest):
    """A request to decide. All its items belong to the same department."""

    policy: str | None = None  # None: the server's default
    department: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer to one call: for each item, a Score for each of its responses, or a Screened where verdicts
    were asked for.
    """

    model: ModelRef
    scores: list[list[Score]]
    id: str
    timings_ms: Mapping[str, float]
