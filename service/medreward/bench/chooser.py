"""What is measured: something that chooses one of two answers, or says why it does not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from medreward.bench.cases import ANSWERS, Case, Choice
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

OK: Final = "ok"


class StoppedError(ConfigurationError):
    """Every case behind this one would fail as well, so the run stops."""


@dataclass(frozen=True, slots=True)
class About:
    """Who chooses. What a chat endpoint runs cannot be known: it has no fingerprint."""

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
class Prediction:
    """What was chosen for one case. `status` is "ok", or the code of why there is no choice."""

    status: str
    choices: Mapping[str, Choice | None]
    logits: Mapping[str, Mapping[str, float | None]] | None = None
    replies: tuple[Reply, ...] | None = None


class Chooser(Protocol):
    async def about(self) -> About:
        """Returns who chooses. It is called once, before any case."""

    async def choose(self, case: Case) -> Prediction:
        """Returns what is chosen; raises StoppedError if no case can be answered now."""

    def totals(self, predictions: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns what the whole run took, from what was recorded."""

    async def aclose(self) -> None: ...


def unanswered(status: str) -> Prediction:
    """Returns that nothing was chosen, on any dimension, and the code of why."""
    return Prediction(status, dict.fromkeys(DIMENSIONS))


def by_logits(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> Prediction:
    """Returns the answer with the higher logit on each dimension; no choice where the model has no such dimension."""
    choices: dict[str, Choice | None] = {}
    for dimension in DIMENSIONS:
        one, other = a[dimension], b[dimension]
        if one is None or other is None:
            choices[dimension] = None
        else:
            choices[dimension] = "A" if one > other else "B" if one < other else "tie"
    return Prediction(OK, choices, dict(zip(ANSWERS, (a, b), strict=True)))


def missing_dimensions(logits: Iterable[Mapping[Any, Mapping[str, float | None]] | None]) -> frozenset[str]:
    """Returns the dimensions that a model has not, by the logits of its cases: it was never asked about them."""
    return frozenset(name for of in logits if of for six in of.values() for name, logit in six.items() if logit is None)
