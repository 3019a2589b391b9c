"""How a model reads an answer that repeats itself or is long: it leaves out what was said before, and reads the rest
in windows, whose logits are joined.
"""

from collections.abc import Sequence

import numpy as np

from medreward.artifacts.manifest import Reading
from medreward.backends.base import HeadOutputs, Logits
from medreward.types import DIMENSIONS


def said_once(ids: Sequence[int], run: int) -> list[int]:
    """Returns the tokens without those of any `run` tokens that have stood in the text before, in this order."""
    seen: set[tuple[int, ...]] = set()
    again: set[int] = set()
    for start in range(len(ids) - run + 1):
        words = tuple(ids[start : start + run])
        if words in seen:
            again.update(range(start, start + run))
        seen.add(words)
    return [token for place, token in enumerate(ids) if place not in again]


def windows(answer: Sequence[int], reading: Reading) -> list[list[int]]:
    """Returns the parts of an answer that are read, each with the answer's closing token; one part for a short one."""
    *said, end = answer
    ids = said_once(said, reading.run)
    last = max(0, len(ids) - reading.window)
    starts = [*range(0, last, reading.step), last]
    return [[*ids[start : start + reading.window], end] for start in starts]


def joined(windows: Logits) -> HeadOutputs:
    """Returns the logits of an answer from those of its windows. The more a window answers the question, the more it
    weighs.
    """
    if len(windows) == 1:
        only: HeadOutputs = windows[0]
        return only
    answering = windows[:, :, DIMENSIONS.index("responsiveness")].mean(1, dtype=np.float64)
    weights = np.exp(answering - answering.max())
    mean: HeadOutputs = np.tensordot(weights / weights.sum(), windows, 1).astype(np.float32)
    return mean
