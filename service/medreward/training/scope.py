"""Whether an image is like those a model learnt from: the Mahalanobis distance of what the tower makes of it."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from medreward.training.images import Images
from medreward.training.tower import Tower

KNOWN: Final = 3000  # images that are looked at to learn what is common
WITHIN: Final = 0.99  # share of new images of the same kind that are to be within the scope
RIDGE: Final = 0.01  # of the mean variance, so that directions in which nothing ever varied do not decide alone
AT_ONCE: Final = 32


class Scope(nn.Module):
    """Above 0 for an image further from the known ones than nearly all new ones of their kind."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.middle: Tensor
        self.scale: Tensor
        self.register_buffer("middle", torch.zeros(width))
        self.register_buffer("scale", torch.eye(width))

    def forward(self, image_tokens: Tensor) -> Tensor:
        """[images, places, width] to [images]"""
        distance: Tensor = ((image_tokens[:, 0] - self.middle) @ self.scale).square().sum(1)
        return distance - 1.0


def fit_scope(tower: Tower, images: Images, known: Sequence[str], new: Sequence[str]) -> Scope:
    """`new` are images of the same kind that were not learnt from."""
    chosen = np.random.default_rng(0).permutation(len(known))[:KNOWN]
    seen = _summaries(tower, images, [known[place] for place in chosen])
    scope = Scope(tower.width)
    scope.middle = seen.mean(0)
    values, directions = torch.linalg.eigh((seen - scope.middle).T.cov())
    scope.scale = directions * (values.clamp(min=0.0) + RIDGE * values.mean()).rsqrt()
    distances = scope(_summaries(tower, images, new)[:, None]) + 1.0
    scope.scale = scope.scale / torch.quantile(distances, WITHIN).sqrt()
    return scope


@torch.inference_mode()
def _summaries(tower: Tower, images: Images, names: Sequence[str]) -> Tensor:
    parts = [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]
    return torch.cat([tower(torch.from_numpy(images[part]))[:, 0] for part in parts]).clone()
