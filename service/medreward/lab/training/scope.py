"""Whether an image is like those a model learnt from: how far what the tower makes of it lies from what is common.

An image is summed up by the mean and the deviation of its visual tokens. Distance counts in the common directions by
what is usual there (Mahalanobis), in all others alike: whatever nothing ever varied in is strange.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from medreward.lab.training.images import Images
from medreward.lab.training.tower import Tower

KNOWN: Final = 3000  # images that are looked at to learn what is common
WITHIN: Final = 0.99  # share of new images of the same kind that are to be within the scope
RIDGE: Final = 0.03  # of the mean variance: what is usual in a direction in which nothing ever varied
DIRECTIONS: Final = 128  # that are common
AT_ONCE: Final = 32


class Scope(nn.Module):
    """Above 0 for an image further from the known ones than nearly all new ones of their kind."""

    def __init__(self, width: int, directions: int) -> None:
        super().__init__()
        self.middle: Tensor
        self.usual: Tensor
        self.within: Tensor
        self.register_buffer("middle", torch.zeros(2 * width))
        self.register_buffer("usual", torch.zeros(2 * width, directions))
        self.register_buffer("within", torch.ones(1))

    def forward(self, image_tokens: Tensor) -> Tensor:
        """[images, places, width] to [images]"""
        return self.distance(summary(image_tokens)) / self.within - 1.0

    def distance(self, summaries: Tensor) -> Tensor:
        away = summaries - self.middle
        return away.square().sum(1) - (away @ self.usual).square().sum(1)


def summary(image_tokens: Tensor) -> Tensor:
    """The first token is the whole."""
    local = image_tokens[:, 1:]
    return torch.cat([local.mean(1), local.std(1)], 1)


def fit_scope(tower: Tower, images: Images, known: Sequence[str], new: Sequence[str]) -> Scope:
    """`new` are images of the same kind that were not learnt from."""
    chosen = np.random.default_rng(0).permutation(len(known))[:KNOWN]
    seen = _summaries(tower, images, [known[place] for place in chosen])
    scope = Scope(tower.width, min(DIRECTIONS, seen.shape[1]))
    scope.middle = seen.mean(0)
    values, directions = torch.linalg.eigh((seen - scope.middle).T.cov())
    usual = (values.clamp(min=0.0) / (values.clamp(min=0.0) + RIDGE * values.mean())).sqrt()
    scope.usual = (directions * usual)[:, -DIRECTIONS:].half().float()  # as it is stored
    scope.within = torch.quantile(scope.distance(_summaries(tower, images, new)), WITHIN)[None]
    return scope


@torch.inference_mode()
def _summaries(tower: Tower, images: Images, names: Sequence[str]) -> Tensor:
    parts = [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]
    return torch.cat([summary(tower(torch.from_numpy(images[part]))) for part in parts]).clone()
