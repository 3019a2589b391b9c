"""Whether an image is like those a model learnt from: how far what the tower makes of it lies from what is common.

An image is summed up by the mean and the deviation of its visual tokens. Distance counts in the common directions by
what is usual there (Mahalanobis), in all others alike: whatever nothing ever varied in is strange. Beside it stands a
direction that leads from what was learnt from to drawn pictures of the world outside. Either is enough.
"""

from typing import Final

import torch
from torch import Tensor, nn

from medreward.lab.training.images import Pixels
from medreward.lab.training.tower import Tower

KNOWN: Final = 1500  # images that are looked at to learn what is common
WITHIN: Final = 0.997  # share of new images of the same kind that are to be within the scope, by each of the two
RIDGE: Final = 0.03  # of the mean variance: what is usual in a direction in which nothing ever varied
DIRECTIONS: Final = 128  # that are common
SHRINK: Final = 0.3  # of the direction outward, against the mean square of a summary's numbers
AT_ONCE: Final = 32


class Scope(nn.Module):
    """Gives more than 0 for an image further from the known ones than nearly all new ones of their kind."""

    def __init__(self, width: int, directions: int) -> None:
        super().__init__()
        self.middle: Tensor
        self.usual: Tensor
        self.within: Tensor
        self.register_buffer("middle", torch.zeros(2 * width))
        self.register_buffer("usual", torch.zeros(2 * width, directions))
        self.register_buffer("within", torch.ones(1))
        self.outward: Tensor
        self.level: Tensor
        self.register_buffer("outward", torch.zeros(2 * width))
        self.register_buffer("level", torch.ones(1))

    def forward(self, image_tokens: Tensor) -> Tensor:
        """Turns [images, places, width] into one number an image."""
        found = summary(image_tokens)
        return torch.maximum(self.distance(found) / self.within - 1.0, found @ self.outward - self.level)

    def distance(self, summaries: Tensor) -> Tensor:
        away = summaries - self.middle
        return away.square().sum(1) - (away @ self.usual).square().sum(1)


def summary(image_tokens: Tensor) -> Tensor:
    """Returns mean and deviation of the local tokens; the first token is the whole and is left out."""
    local = image_tokens[:, 1:]
    return torch.cat([local.mean(1), local.std(1)], 1)


def fit_scope(known: Tensor, new: Tensor, outside: Tensor) -> Scope:
    """Fits the scope to summaries; `new` are of images of the known kind that were not learnt from."""
    scope = Scope(known.shape[1] // 2, min(DIRECTIONS, known.shape[1]))
    scope.middle = known.mean(0)
    values, directions = torch.linalg.eigh((known - scope.middle).T.cov())
    usual = (values.clamp(min=0.0) / (values.clamp(min=0.0) + RIDGE * values.mean())).sqrt()
    scope.usual = (directions * usual)[:, -DIRECTIONS:].half().float()  # as it is stored
    scope.within = torch.quantile(scope.distance(new), WITHIN)[None]
    scope.outward = _outward(known, outside)
    scope.level = torch.quantile(new @ scope.outward, WITHIN)[None]
    return scope


def _outward(known: Tensor, outside: Tensor) -> Tensor:
    """Returns the direction of a ridge regression that weighs both sides alike, each number by how much it varies."""
    deviation = known.std(0) + 1e-6
    both = (torch.cat([known, outside]) - known.mean(0)) / deviation
    share = torch.cat([torch.full((len(part),), 1.0 / len(part)) for part in (known, outside)])
    side = torch.cat([torch.full((len(known),), -0.5), torch.full((len(outside),), 0.5)])
    square = (both * share[:, None]).T @ both + SHRINK * torch.eye(both.shape[1])
    direction: Tensor = torch.linalg.solve(square, (both * share[:, None]).T @ side) / deviation
    return direction


@torch.inference_mode()
def summaries(tower: Tower, pixels: Pixels) -> Tensor:
    """Returns the summaries of uint8 pictures at the tower's size."""
    parts = [pixels[start : start + AT_ONCE] for start in range(0, len(pixels), AT_ONCE)]
    return torch.cat([summary(tower(torch.from_numpy(part))) for part in parts]).clone()
