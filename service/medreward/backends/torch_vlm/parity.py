"""A checkpoint in our hands against the same in transformers' own: what `medreward doctor --parity` asks."""

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
    """Logits of a group, each run both ways: answers, heads, dimensions."""

    ours: Logits
    plain: Logits

    @property
    def largest(self) -> float:
        return float(np.abs(self.ours - self.plain).max())


@dataclass(frozen=True, slots=True)
class Orders:
    """Of all pairs of answers in each group, on each dimension."""

    pairs: int
    flips: int  # those that plain transformers puts in another order

    @property
    def share(self) -> float:
        return self.flips / self.pairs if self.pairs else 0.0


@torch.inference_mode()
def compared(backend: TorchVlmBackend, groups: Sequence[Group]) -> list[Compared]:
    """Beside our logits those of each answer as one forward of a whole sequence."""
    found = []
    for group, ours in zip(groups, backend.score(groups), strict=True):
        images = [group.image.pixels] if group.image else []
        ends = backend.heads.tails or [()]
        whole = [
            torch.cat([backend.backbone.whole(images, [group.prompt], [[*answer, *end]]) for end in ends])
            for answer in group.answers
        ]
        found.append(Compared(ours, backend.heads(torch.stack(whole)).cpu().numpy()))
    return found


def orders(found: Sequence[Compared]) -> Orders:
    """By the mean of the heads, as it is served. Answers that are equal in plain transformers have no order."""
    pairs = flips = 0
    for each in found:
        ours, plain = each.ours.mean(1), each.plain.mean(1)
        for i, j in combinations(range(len(plain)), 2):
            right = np.sign(plain[i] - plain[j])
            pairs += int(np.count_nonzero(right))
            flips += int(np.count_nonzero((np.sign(ours[i] - ours[j]) != right) & (right != 0)))
    return Orders(pairs, flips)


def tolerance(dtype: torch.dtype, found: Sequence[Compared]) -> float:
    """Bounds as of golden logits; in bf16 in spreads, of which 28 layers came to 0.21 without a fault (docs/vlm.md)."""
    return EXACT if dtype == torch.float32 else BF16 * spread(found)


def spread(found: Sequence[Compared]) -> float:
    """Standard deviation of a plain logit among the answers of a group."""
    return float(np.sqrt(np.mean([each.plain.var(0).mean() for each in found if len(each.plain) > 1])))
