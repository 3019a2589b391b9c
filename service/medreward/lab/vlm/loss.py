"""Bradley-Terry for each dimension, with a margin and centring, and cross entropy where an answer was graded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from medreward.lab.vlm.examples import Example
from medreward.lab.vlm.recipe import Loss


@dataclass(frozen=True, slots=True)
class Counts:
    """How much is told in a whole step, by which its forwards are averaged: all of them weigh by what they tell."""

    wins: int
    pairs: int
    grades: int


def counts(examples: Sequence[Example]) -> Counts:
    """Returns how many wins, pairs and grades the examples tell."""
    wins, grades = (
        int((~torch.tensor([getattr(e, name) for e in examples]).isnan()).sum()) for name in ("wins", "grades")
    )
    return Counts(wins, sum(len(example.answers) == 2 for example in examples), grades)


def step_loss(logits: Tensor, examples: Sequence[Example], seen: Tensor, of: Counts, settings: Loss) -> Tensor:
    """Returns these examples' part of a step's loss, which is the sum of its parts.

    `logits` [answers, heads, dimensions] are those of all answers, one example after the other, and `seen`
    [examples, heads] says with 1 which head learns from which example.
    """
    first = torch.tensor([0, *(len(example.answers) for example in examples)], device=logits.device).cumsum(0)[:-1]
    paired = torch.tensor([len(example.answers) == 2 for example in examples], device=logits.device)
    zero = logits.sum() * 0.0  # keeps every weight in the graph where nothing is told
    pairs, graded = zero, zero
    if paired.any():
        a, b = logits[first[paired]], logits[first[paired] + 1]
        pairs = _pair_loss(a, b, [e for e in examples if len(e.answers) == 2], seen[paired], of, settings)
    if not paired.all():
        grades = _by_head([e.grades for e in examples if len(e.answers) == 1], logits)
        known = ~grades.isnan() * seen[~paired][:, :, None]
        loss = binary_cross_entropy_with_logits(logits[first[~paired]], grades.nan_to_num(0.0), reduction="none")
        graded = settings.graded * (loss * known).sum() / max(1, of.grades) / logits.shape[1]
    return zero + pairs + graded


def _pair_loss(a: Tensor, b: Tensor, examples: Sequence[Example], seen: Tensor, of: Counts, settings: Loss) -> Tensor:
    """Returns Bradley-Terry over what is told of each dimension, and the centring over all of them."""
    wins = _by_head([example.wins for example in examples], a)
    known = ~wins.isnan() * seen[:, :, None]
    wins = wins.nan_to_num(0.5)
    own = [settings.margin if example.margin is None else example.margin for example in examples]
    # A tie has no margin: nobody must be ahead.
    margin = torch.tensor(own, device=a.device)[:, None, None] * (2 * wins - 1).abs()
    ahead = a - b
    loss = -wins * logsigmoid(ahead - margin) - (1 - wins) * logsigmoid(-ahead - margin)
    level = (a + b).square().sum() / max(1, of.pairs * a.shape[2])
    return ((loss * known).sum() / max(1, of.wins) + settings.centring * level) / a.shape[1]


def _by_head(values: Sequence[Sequence[float]], logits: Tensor) -> Tensor:
    return torch.tensor(values, device=logits.device)[:, None, :].expand(-1, logits.shape[1], -1)
