"""Compares our logits with the reference, which is transformers' own forward: `medreward doctor --parity` shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from medreward.artifacts.golden import BF16, EXACT
from medreward.backends.base import Group, Logits
from medreward.backends.torch_vlm.backend import TorchVlmBackend


@dataclass(frozen=True, slots=True)
class Compared:
    """The logits of a group from both ways of running it, by answer, head and dimension."""

    ours: Logits
    plain: Logits

    @property
    def largest(self) -> float:
        """The largest difference of a logit."""
        return float(np.abs(self.ours - self.plain).max())


@dataclass(frozen=True, slots=True)
class Orders:
    """How many pairs of answers within a group have an order, over all groups and dimensions."""

    pairs: int
    flips: int  # those that plain transformers puts into another order

    @property
    def share(self) -> float:
        """The part of the pairs that flips; 0 without a pair."""
        return self.flips / self.pairs if self.pairs else 0.0


@torch.inference_mode()
def compare(backend: TorchVlmBackend, groups: Sequence[Group]) -> list[Compared]:
    """Returns, for each group, our logits and those of each answer in one forward of its whole sequence."""
    both = []
    for group, ours in zip(groups, backend.score(groups), strict=True):
        images = [group.images] if group.image else []
        ends = backend.heads.tails or [()]
        whole = [
            torch.cat([backend.backbone.whole(images, [group.prompt], [[*answer, *end]]) for end in ends])
            for answer in group.answers
        ]
        both.append(Compared(ours, backend.heads(torch.stack(whole)).cpu().numpy()))
    return both


def orders(groups: Sequence[Compared]) -> Orders:
    """Returns how many pairs have an order, by the mean of the heads, which is what is served.

    Answers that are equal in plain transformers have no order.
    """
    pairs = flips = 0
    for each in groups:
        ours, plain = each.ours.mean(1), each.plain.mean(1)
        for i, j in combinations(range(len(plain)), 2):
            right = np.sign(plain[i] - plain[j])
            pairs += int(np.count_nonzero(right))
            flips += int(np.count_nonzero((np.sign(ours[i] - ours[j]) != right) & (right != 0)))
    return Orders(pairs, flips)


def tolerance(dtype: torch.dtype, groups: Sequence[Compared]) -> float:
    """Returns how far a logit may be from the reference: as far as from a golden one.

    In bf16 that is counted in spreads; 28 layers came to 0.21 of one without a fault (docs/vlm.md).
    """
    return EXACT if dtype == torch.float32 else BF16 * spread(groups)


def spread(groups: Sequence[Compared]) -> float:
    """Returns the standard deviation of a plain logit among the answers of a group."""
    return float(np.sqrt(np.mean([each.plain.var(0).mean() for each in groups if len(each.plain) > 1])))
