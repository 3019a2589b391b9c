"""Makes scores, uncertainty and reward of logits, by plain arithmetic that is the same on every machine."""

import math
from collections.abc import Mapping, Sequence

from medreward.artifacts.manifest import Calibration
from medreward.backends.base import HeadOutputs
from medreward.errors import Code, ItemError
from medreward.ranking import sigmoid
from medreward.types import DIMENSIONS, Aside, Contribution, Failed, Flag, Result, Scored, Six, Step


class Scoring:
    """The calibration of one model or expert, which names its dimensions, and the weights of one request.

    `viewpoints` holds the weights of each viewpoint under which the reward is wanted too; None where none is.
    """

    def __init__(
        self,
        calibration: Mapping[str, Calibration],
        weights: Mapping[str, float],
        viewpoints: Mapping[str, Mapping[str, float]] | None = None,
        expert: str = "",
    ) -> None:
        own = [d for d in DIMENSIONS if d in calibration]
        self._calibration = [(calibration[d].median, calibration[d].scale) for d in own]
        self._weights = [weights.get(d, 0.0) for d in own]
        self._expert = expert
        self._viewpoints = None
        if viewpoints is not None:
            self._viewpoints = {name: [each.get(d, 0.0) for d in own] for name, each in viewpoints.items()}
        self._places = None if len(own) == len(DIMENSIONS) else [own.index(d) if d in own else None for d in DIMENSIONS]
        self._has_reward = all(d in calibration for d, weight in weights.items() if weight)

    def result(
        self, item: int, response: int, heads: HeadOutputs, flags: tuple[Flag, ...], cached: bool = False
    ) -> Result:
        """Returns what is answered about one response; Failed where a logit is not finite.

        `heads` holds the logits as each head of the ensemble sees them, and perhaps how strange the image is.
        """
        by_dimension = heads.T[: len(self._weights)].tolist()
        if (heads[:, len(self._weights) :] > 0).any():
            flags = (*flags, Flag.OUT_OF_SCOPE)
        logits = tuple(math.fsum(values) / len(values) for values in by_dimension)
        if not all(map(math.isfinite, logits)):
            return Failed(item, response, ItemError(Code.NON_FINITE_SCORE, "the model gave no finite number"), flags)
        spread = None
        if len(heads) > 1:  # the standard deviation over the heads
            apart = (math.fsum((x - mean) ** 2 for x in xs) for xs, mean in zip(by_dimension, logits, strict=True))
            spread = tuple(math.sqrt(squares / len(heads)) for squares in apart)
        scores = tuple(
            sigmoid((x - median) / scale) for x, (median, scale) in zip(logits, self._calibration, strict=True)
        )
        reward = _reward(self._weights, logits)
        viewpoints = None
        if self._viewpoints is not None:
            viewpoints = {name: _reward(weights, logits) for name, weights in self._viewpoints.items()}
        if self._places is None:
            own = (logits, scores, spread, reward)
            return Scored(item, response, *own, flags, cached, expert=self._expert, viewpoints=viewpoints)
        six = (self._six(logits), self._six(scores), self._six(spread) if spread else None)
        own_reward = reward if self._has_reward else None
        return Scored(item, response, *six, own_reward, flags, cached, expert=self._expert, viewpoints=viewpoints)

    def _six(self, values: Sequence[float]) -> Six:
        return tuple(None if place is None else values[place] for place in self._places or ())


def contribution(start: int, end: int, whole: Scored, without: Result) -> Contribution:
    """Returns what the stretch of a response adds to it: the whole's numbers less those of the response without it.

    Where there is no number on both sides there is none here.
    """
    if isinstance(without, Failed):
        return Contribution(start, end, None, None, without.error)
    logits = tuple(map(_difference, whole.logits, without.logits))
    return Contribution(start, end, logits, _difference(whole.reward, without.reward))


def step(end: int, cut: Result) -> Step:
    """Returns the numbers of the response that ends there, or why there are none."""
    if isinstance(cut, Failed):
        return Step(end, None, None, error=cut.error)
    return Step(end, cut.logits, cut.reward)


def aside(result: Result) -> Aside:
    """Returns the numbers of a result that stands beside another, or why there are none."""
    if isinstance(result, Failed):
        return Aside(None, None, None, None, result.flags, result.error)
    return Aside(result.logits, result.scores, result.uncertainty, result.reward, result.flags)


def _reward(weights: Sequence[float], logits: Sequence[float]) -> float:
    return math.fsum(weight * x for weight, x in zip(weights, logits, strict=True) if weight)


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
