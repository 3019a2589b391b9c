"""Steps between the server's rewards and the trainer. All of them are off by default; docs/shaping.md explains them.

None is a response that was not scored. It stays None, counts in no statistic, and never becomes a number.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, stdev

from medreward.clients.score import Score

Rewards = list[float | None]
MaybeRewards = Sequence[float | None]
Numbers = list[tuple[int, float]]  # places and what stands there


def normalised(rewards: MaybeRewards, groups: Sequence[Hashable]) -> Rewards:
    """Returns each reward in standard deviations (n - 1 in the denominator) from the mean of its group.

    Questions differ in how high their answers score; which of n answers to one question is best is what a trainer can
    learn from. A group of equal rewards, or of a single one, holds no such knowledge: 0.
    """
    shaped: Rewards = list(rewards)
    for numbers in _by_group(rewards, groups):
        values = [value for _, value in numbers]
        mean = fmean(values)
        spread = stdev(values) if min(values) < max(values) else 0.0
        for i, value in numbers:
            shaped[i] = (value - mean) / spread if spread else 0.0
    return shaped


def normalised_sum(scores: Sequence[Score], groups: Sequence[Hashable], weights: Mapping[str, float]) -> Rewards:
    """Returns the sum by weight of the dimensions' logits, each normalised within its group (GDPO).

    Added up raw, the dimension that spreads most decides alone, and groups with different trade-offs can come out
    equal. Normalised first, each dimension counts as much as its weight says.
    """
    total: Rewards = [None if score.logits is None else 0.0 for score in scores]
    for dimension, weight in weights.items():
        if not weight:  # whether the model has that dimension or not
            continue
        column = normalised([score.logits[dimension] if score.logits else None for score in scores], groups)
        total = [None if a is None or b is None else a + weight * b for a, b in zip(total, column, strict=True)]
    return total


def viewpoint_advantages(
    scores: Sequence[Score], groups: Sequence[Hashable], weights: Mapping[str, float] | None = None
) -> Rewards:
    """Returns the mean by weight of the rewards under each viewpoint, each normalised within its group.

    The scores are those of a call with viewpoints="all"; `weights` are by viewpoint, and equal where none are given.
    Each guideline ranks the answers by itself, and counts as its weight says, however large its numbers are. Raises
    ValueError for scores without viewpoints, a viewpoint that they have not, and weights of which no sum is left.
    """
    known = next((score.viewpoints for score in scores if not score.error), None)
    if known is None and all(score.error for score in scores):
        return [None] * len(scores)
    if not known:
        raise ValueError('these scores have no viewpoints: ask with viewpoints="all", and a model that has some')
    weights = dict.fromkeys(known, 1.0) if weights is None else weights
    total = math.fsum(weights.values())
    if unknown := weights.keys() - known:
        raise ValueError(f"the model has no viewpoint {', '.join(sorted(unknown))}: it has {', '.join(known)}")
    if min(weights.values(), default=0) < 0 or total <= 0:
        raise ValueError("the weights of viewpoints must be 0 or more, and one of them more than 0")
    advantages: Rewards = [None if score.error else 0.0 for score in scores]
    for name, weight in weights.items():
        column = normalised([score.viewpoints[name] if score.viewpoints else None for score in scores], groups)
        advantages = [
            None if a is None or b is None else a + weight / total * b for a, b in zip(advantages, column, strict=True)
        ]
    return advantages


def penalised(scores: Sequence[Score], weights: Mapping[str, float], k: float) -> list[Score]:
    """Returns scores whose rewards are lower by k * (sum over dimensions of |weight| * uncertainty), with their logits.

    A policy finds the answers its reward model is wrong about; where the ensemble disagrees, the number is worth less.
    The sum is the standard deviation of the reward if all dimensions err together: whatever their correlation, the true
    one is not above it. Raises ValueError for a model that gives no uncertainty: its numbers cannot be penalised.
    """
    lowered = []
    for score in scores:
        if score.logits is None:
            lowered.append(score)
            continue
        if score.uncertainty is None:
            raise ValueError("this model gives no uncertainty: leave uncertainty_penalty 0, or serve a model that does")
        doubts = {d: doubt for d in weights if (doubt := score.uncertainty[d]) is not None}
        steps = {d: math.copysign(k, weights[d]) * doubt for d, doubt in doubts.items()}
        reward = None if score.reward is None else score.reward - sum(weights[d] * step for d, step in steps.items())
        moved = {d: logit - step for d, step in steps.items() if (logit := score.logits[d]) is not None}
        lowered.append(replace(score, reward=reward, logits={**score.logits, **moved}))
    return lowered


def debiased(rewards: MaybeRewards, lengths: Sequence[float], groups: Sequence[Hashable]) -> Rewards:
    """Returns rewards without what their length explains: reward - slope * (length - the group's mean length).

    Reward models tend to like long answers, and a policy learns that first. The slope is ordinary least squares over
    the whole batch with each group's means taken out (the within, or fixed-effects, estimator), so that an easy
    question which asks for long answers is no evidence; a group's mean reward stays what it was. One group for all
    gives the plain regression over the batch. With fewer than two degrees of freedom, or equal lengths, nothing
    changes: a line through two points would explain everything.
    """
    away = _from_group_means(rewards, lengths, groups)
    spread = sum(x * x for _, x in away.values())
    if len(away) - len({groups[i] for i in away}) - 1 < 2 or not spread:
        return list(rewards)
    slope = sum(x * y for y, x in away.values()) / spread
    return [None if reward is None else reward - slope * away[i][1] for i, reward in enumerate(rewards)]


def length_correlation(rewards: MaybeRewards, lengths: Sequence[float], groups: Sequence[Hashable]) -> float | None:
    """Returns Pearson's correlation of reward and length over the batch, each from the mean of its group.

    None where all rewards of each group are equal, or all lengths: there is nothing to see then.
    """
    away = _from_group_means(rewards, lengths, groups).values()
    of_rewards, of_lengths = (math.sqrt(sum(pair[i] ** 2 for pair in away)) for i in (0, 1))
    if not of_rewards or not of_lengths:
        return None
    return sum(y * x for y, x in away) / of_rewards / of_lengths


def potential_differences(potentials: MaybeRewards, gamma: float = 1.0) -> Rewards:
    """Returns what each step adds: gamma * potentials[t + 1] - potentials[t], one fewer than there are potentials.

    Rewards of cut answers, added as they are, pay a policy for every step it makes, so that it makes many. Differences
    do not: they add up to gamma^n * the last potential - the first, whatever lies between, so that which answer is the
    best stays as it was (Ng, Harada and Russell, 1999). The first potential is that of the answer before its first
    step: the empty answer's, or 0. Where the trainer also adds the reward of the whole answer, the last must be 0.
    None on either side gives None. Raises ValueError unless gamma lies above 0 and is at most 1.
    """
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma is {gamma}: it must lie above 0, and be at most 1")
    return [None if a is None or b is None else gamma * b - a for a, b in pairwise(potentials)]


def clipped(rewards: MaybeRewards, low: float, high: float) -> Rewards:
    """Rewards held within [low, high].

    One extreme number moves a batch's mean and standard deviation, and with them every other answer's advantage.
    """
    return [None if reward is None else min(max(reward, low), high) for reward in rewards]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """The steps to take, in this order. As it stands, none: rewards pass through as the server gave them."""

    uncertainty_penalty: float = 0.0  # k of `penalised`
    normalise_dimensions: bool = False  # `normalised_sum`
    normalise_viewpoints: bool = False  # `viewpoint_advantages`
    debias_length: bool = False
    normalise_group: bool = False
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.uncertainty_penalty < 0:
            raise ValueError(f"uncertainty_penalty is {self.uncertainty_penalty}: it must be 0 or more")
        if self.normalise_viewpoints and (self.uncertainty_penalty or self.normalise_dimensions):
            raise ValueError(
                "normalise_viewpoints makes the reward of the server's rewards under its viewpoints: leave "
                "uncertainty_penalty and normalise_dimensions out beside it"
            )
        if self.clip and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip is {self.clip}: it must be (low, high) with low below high")

    @property
    def needs_weights(self) -> bool:
        """Whether the server's reward is not enough, so that its weights must be known here."""
        return bool(self.uncertainty_penalty or self.normalise_dimensions)

    def __call__(
        self,
        scores: Sequence[Score],
        groups: Sequence[Hashable],
        lengths: Sequence[float],
        weights: Mapping[str, float] | None = None,
    ) -> Rewards:
        """`groups`: for each score, what it shares with the other answers to its question. `lengths`: the answers'."""
        if self.needs_weights and not weights:
            raise ValueError("this shaping adds the dimensions up itself: give it weights={dimension: weight}")
        if self.uncertainty_penalty:
            scores = penalised(scores, weights or {}, self.uncertainty_penalty)
        rewards: Rewards = [score.reward for score in scores]
        if self.normalise_dimensions:
            rewards = normalised_sum(scores, groups, weights or {})
        if self.normalise_viewpoints:
            rewards = viewpoint_advantages(scores, groups)
        if self.debias_length:
            rewards = debiased(rewards, lengths, groups)
        if self.normalise_group:
            rewards = normalised(rewards, groups)
        return clipped(rewards, *self.clip) if self.clip else rewards


def _by_group(rewards: MaybeRewards, groups: Sequence[Hashable]) -> list[Numbers]:
    """Returns places and rewards of what was scored, group by group."""
    numbers: defaultdict[Hashable, Numbers] = defaultdict(list)
    for i, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        if reward is not None:
            numbers[group].append((i, reward))
    return list(numbers.values())


def _from_group_means(
    rewards: MaybeRewards, lengths: Sequence[float], groups: Sequence[Hashable]
) -> dict[int, tuple[float, float]]:
    """Returns by place, for what has a reward, how far reward and length are from the means of their group."""
    away: dict[int, tuple[float, float]] = {}
    for numbers in _by_group(rewards, groups):
        places = [i for i, _ in numbers]
        from_means = zip(_centred([r for _, r in numbers]), _centred([lengths[i] for i in places]), strict=True)
        away |= zip(places, from_means, strict=True)
    return away


def _centred(values: Sequence[float]) -> list[float]:
    mean = fmean(values) if min(values) < max(values) else values[0]  # of equal values, fmean may be a bit off
    return [value - mean for value in values]
