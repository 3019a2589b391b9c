"""Which examples a step learns from, and which head of an ensemble sees them, by the seed alone."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medreward.lab.vlm.recipe import Recipe

Places = NDArray[np.int64]


def batch_at(examples: int, batch: int, seed: int, step: int) -> Places:
    """Returns the places of a step's examples. All examples have been learnt from before one comes again."""
    first = batch * step
    turns = [divmod(number, examples) for number in range(first, first + batch)]
    return np.array([_shuffled(examples, seed, turn)[place] for turn, place in turns], np.int64)


@lru_cache(maxsize=4)
def _shuffled(examples: int, seed: int, turn: int) -> Places:
    return np.random.default_rng([seed, turn]).permutation(examples)


def seen_by(places: Places, recipe: Recipe) -> Tensor:
    """Returns [examples, heads] with 1 where the head learns from the example. A single head learns from all."""
    count = recipe.heads.count
    if count == 1:
        return torch.ones(len(places), 1)
    rows = [np.random.default_rng([recipe.seed, 1, place]).random(count) < recipe.heads.seen for place in places]
    return torch.from_numpy(np.stack(rows)).float()
