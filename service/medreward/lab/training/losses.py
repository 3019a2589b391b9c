"""Losses over graded answers: Bradley-Terry for each dimension, and regression where a grade was given."""

import torch
from torch import Tensor, nn

STEEPNESS = 8.0  # of the probability that the better graded answer wins
SMOOTHING = 0.02


def win_chances(better: Tensor) -> Tensor:
    """Returns how often an answer graded so much better should win: half the time at equal grades, never always."""
    return torch.sigmoid(STEEPNESS * better).clamp(SMOOTHING, 1.0 - SMOOTHING)


def pair_loss(logits: Tensor, pairs: Tensor, better: Tensor, weights: Tensor) -> Tensor:
    """`logits` [rows, dimensions], `pairs` [pairs, 2], `better` [pairs, dimensions] with NaN where it is not
    known, `weights` [pairs]."""
    ahead = logits[pairs[:, 0]] - logits[pairs[:, 1]]
    known = ~better.isnan()
    target = win_chances(better.nan_to_num(0.0))
    loss = nn.functional.binary_cross_entropy_with_logits(ahead, target, reduction="none")
    weight = weights[:, None] * known
    return (loss * weight).sum() / weight.sum().clamp(min=1.0)


def grade_loss(logits: Tensor, grades: Tensor) -> Tensor:
    """Returns the mean square error of scores; `grades` [rows, dimensions] are NaN where none was given."""
    known = ~grades.isnan()
    scores = torch.sigmoid(logits / 2.0)
    loss = (scores - grades.nan_to_num(0.0)).square() * known
    return loss.sum() / known.sum().clamp(min=1)


def hold_loss(logits: Tensor, told: Tensor, weights: Tensor) -> Tensor:
    """Returns how far the logits [rows, dimensions] are from what a teacher told; `weights` are by dimension."""
    return nn.functional.smooth_l1_loss(logits * weights, told * weights)


def drift_loss(logits: Tensor) -> Tensor:
    """Returns how far the mean logits are from zero: pairs leave that level open."""
    return logits.mean(0).square().mean()
