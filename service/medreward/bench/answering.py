"""What is measured: something that prefers one of two answers, or says why it does not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from medreward.bench.cases import ANSWERS, Case, Choice
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

OK = "ok"


class StoppedError(ConfigurationError):
    """Not this case's fault: going on would fail every case behind it too."""


@dataclass(frozen=True, slots=True)
class About:
    """Who answers. What a chat endpoint runs cannot be known: it has no fingerprint."""

    name: str
    version: str | None = None
    fingerprint: str | None = None
    runtime: str | None = None
    evidence: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One text of a judge. `choices` speak of the case's own A and B, in whichever order they were shown."""

    order: str
    sample: int
    text: str | None
    choices: Mapping[str, str] | None
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is "ok", or the code of why there is no choice."""

    status: str
    choices: Mapping[str, Choice | None]
    logits: Mapping[str, Mapping[str, float | None]] | None = None
    replies: tuple[Reply, ...] | None = None


class Answering(Protocol):
    async def about(self) -> About:
        """Called once, before any case."""

    async def answer(self, case: Case) -> Answer:
        """StoppedError if no case can be answered now."""

    def totals(self, predictions: list[Mapping[str, Any]]) -> dict[str, Any]:
        """What the whole run took, from what was recorded."""

    async def aclose(self) -> None: ...


def unanswered(status: str) -> Answer:
    return Answer(status, dict.fromkeys(DIMENSIONS))


def by_logits(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> Answer:
    choices = {dimension: _higher(a[dimension], b[dimension]) for dimension in DIMENSIONS}
    return Answer(OK, choices, dict(zip(ANSWERS, (a, b), strict=True)))


def missing(logits: Iterable[Mapping[Any, Mapping[str, float | None]] | None]) -> frozenset[str]:
    """Dimensions that a model has not, by the logits of its cases: it was never asked about them."""
    return frozenset(name for of in logits if of for six in of.values() for name, logit in six.items() if logit is None)


def _higher(a: float | None, b: float | None) -> Choice | None:
    if a is None or b is None:
        return None
    return "A" if a > b else "B" if a < b else "tie"
