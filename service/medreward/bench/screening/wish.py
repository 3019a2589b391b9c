"""What a policy shall promise, and by which numbers it may decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from medreward.screening.policy import Measure
from medreward.types import Flag

#: Flags that send an answer to review, unless others are named.
REVIEWED: Final = (
    Flag.NO_IMAGE,
    Flag.OUT_OF_SCOPE,
    Flag.CUT_MIDDLE,
    Flag.CONTROL_TOKENS,
    Flag.RAW_TEXT,
    Flag.EMPTY_RESPONSE,
)


class NotShownError(Exception):
    """The labels cannot show what was asked for; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the policy shall promise, and by which numbers it may decide."""

    name: str
    version: str
    fingerprint: str
    data: str  # digest
    max_false_allow: float = 0.02
    max_false_block: float = 0.01
    confidence: float = 0.95
    dimension: str | None = "accuracy"  # None: the reward decides
    weights: Mapping[str, float] | None = None
    review_flags: Sequence[Flag] = REVIEWED
    review_below: Mapping[str, float] = field(default_factory=dict)
    guard: str = "auto"
    by_department: bool = False

    @property
    def measure(self) -> Measure:
        return Measure.LOGIT if self.dimension else Measure.REWARD
