"""What a client returns: a Score for each response, in one Reply for each call."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from medreward.types import ModelRef

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
    # Where in the call the error is, and whether the server knew the answer: how it came about, not what it says.
    field: str | None = dataclasses.field(default=None, compare=False)
    cached: bool = dataclasses.field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer to one call: for each item, a Score for each of its responses."""

    model: ModelRef
    scores: list[list[Score]]
    id: str
    timings_ms: Mapping[str, float]
