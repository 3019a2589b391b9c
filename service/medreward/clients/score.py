"""What a caller gets for each response."""

from collections.abc import Mapping
from dataclasses import dataclass

from medreward.types import ModelRef


@dataclass(frozen=True, slots=True)
class Score:
    """Six numbers and the reward made of them, or `error`: the code of why there are none. Never an invented number."""

    reward: float | None = None
    scores: Mapping[str, float] | None = None
    logits: Mapping[str, float] | None = None
    uncertainty: Mapping[str, float] | None = None
    flags: tuple[str, ...] = ()
    error: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer to one call: for each item, a Score for each of its responses."""

    model: ModelRef
    scores: list[list[Score]]
