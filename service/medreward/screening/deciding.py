"""The verdict on one scored answer: the first rule of the policy that holds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medreward.screening.policy import OTHERWISE, Measure, Policy, Rule
from medreward.types import DIMENSIONS, Failed, Result, Scored, ScoreRequest, ScoreResponse, Verdict


@dataclass(frozen=True, slots=True)
class Reason:
    """The rule that decided. A rule about a flag has no value and no threshold. `otherwise` has those of the last rule
    with a threshold, which the answer missed."""

    rule: str
    dimension: str | None = None
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, why, and how far the value is from the threshold that decided, in the value's own unit."""

    verdict: Verdict
    reasons: tuple[Reason, ...] = ()  # none where there is no score: its error is the reason
    margin: float | None = None


class Decider:
    """Decides by one policy. `weights` are the model's own, for a policy that names none; without them such a policy
    takes the reward that an answer was scored with."""

    def __init__(self, policy: Policy, weights: Mapping[str, float] | None) -> None:
        self._otherwise = policy.otherwise
        given: Mapping[Any, float] | None = policy.weights or weights
        self._weights = None if given is None else [given.get(dimension, 0.0) for dimension in DIMENSIONS]
        general = [(rule, rule.threshold) for rule in policy.rules]
        self._rules = {
            department: [(rule, thresholds.get(rule.name, threshold)) for rule, threshold in general]
            for department, thresholds in policy.departments.items()
        }
        self._rules[""] = general

    def decide_all(
        self, asked: ScoreRequest, response: ScoreResponse, departments: Sequence[str]
    ) -> tuple[Decision, ...]:
        """Returns a verdict on each result of a response. `departments` has one for each item, or is empty."""
        return tuple(
            self.decide(
                result,
                asked.items[result.item].responses[result.response],
                departments[result.item] if departments else "",
            )
            for result in response.results
        )

    def decide(self, result: Result, response: str, department: str = "") -> Decision:
        """Returns the verdict. A response without a score, or without a number that a rule asks for before one holds,
        is unscored. A department that the policy does not name has the general thresholds."""
        if isinstance(result, Failed):
            return Decision(Verdict.UNSCORED)
        missed = Reason(OTHERWISE)
        for rule, threshold in self._rules.get(department, self._rules[""]):
            if rule.flag:
                if rule.flag in result.flags:
                    return Decision(rule.verdict, (Reason(rule.name),))
                continue
            assert threshold is not None
            value = self._value(rule, result, response)
            if value is None:
                return Decision(Verdict.UNSCORED, (Reason(rule.name, rule.dimension, None, threshold),))
            if (value < threshold) if rule.below is not None else (value >= threshold):
                reason = Reason(rule.name, rule.dimension, value, threshold)
                return Decision(rule.verdict, (reason,), abs(value - threshold))
            missed = Reason(OTHERWISE, rule.dimension, value, threshold)
        margin = (
            abs(missed.value - missed.threshold) if missed.value is not None and missed.threshold is not None else None
        )
        return Decision(self._otherwise, (missed,), margin)

    def _value(self, rule: Rule, scored: Scored, response: str) -> float | None:
        match rule.measure:
            case Measure.LENGTH:
                return len(response)
            case Measure.REWARD:
                if self._weights is None:
                    return scored.reward
                parts = [
                    w * x if x is not None else None for w, x in zip(self._weights, scored.logits, strict=True) if w
                ]
                return None if None in parts else math.fsum(part for part in parts if part is not None)
            case Measure.SCORE:
                six = scored.scores
            case Measure.UNCERTAINTY:
                six = scored.uncertainty or (None,) * len(DIMENSIONS)
            case _:
                six = scored.logits
        return six[DIMENSIONS.index(rule.dimension or "")]
