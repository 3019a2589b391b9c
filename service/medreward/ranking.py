"""Orders responses to one question, and says how sure the model is of the first. Server and client rank by it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from medreward.types import Six


@dataclass(frozen=True, slots=True)
class Ranking:
    """Places of responses, counted from 0. Of equal rewards the response that came first stands first.

    The probabilities are None with fewer than two responses that have a reward.
    """

    order: tuple[int, ...]  # the best first, and those without a reward last
    ties: tuple[tuple[int, ...], ...]  # those that have one and the same reward
    unscored: tuple[int, ...]
    first_beats_second: float | None
    by_dimension: Six | None  # the same for each dimension


def ranking(rewards: Sequence[float | None], logits: Sequence[Six | None], weights: Mapping[str, float]) -> Ranking:
    """Returns how the responses stand to each other by rewards that were made with these weights.

    The first beats the second with the probability sigmoid((r1 - r2) / sum of |weights|): the weighted mean of what the
    dimensions' logits say, whatever the size of the weights. It is as true as the logits are calibrated.
    """
    places = range(len(rewards))
    scored = sorted((place for place in places if rewards[place] is not None), key=lambda place: -(rewards[place] or 0))
    unscored = tuple(place for place in places if rewards[place] is None)
    alike = [tuple(group) for _, group in groupby(scored, rewards.__getitem__)]
    order, ties = (*scored, *unscored), tuple(group for group in alike if len(group) > 1)
    if len(scored) < 2:
        return Ranking(order, ties, unscored, None, None)
    first, second = scored[:2]
    ahead = _ahead(rewards[first], rewards[second]) or 0.0
    size = math.fsum(map(abs, weights.values()))
    of_each = zip(logits[first] or (), logits[second] or (), strict=True)
    by_dimension = tuple(None if (gap := _ahead(a, b)) is None else sigmoid(gap) for a, b in of_each)
    return Ranking(order, ties, unscored, sigmoid(ahead / size if size else 0.0), by_dimension)


def _ahead(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def sigmoid(x: float) -> float:
    """Returns 1 / (1 + e^-x), for numbers of any size."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    return math.exp(x) / (1 + math.exp(x)) if x > -700 else 0.0
