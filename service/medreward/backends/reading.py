"""How a model reads an answer that repeats itself or is long: it leaves out what was said before, and reads the rest
in parts, whose logits are joined.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

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


def parts(answer: Sequence[int], reading: Reading) -> list[list[int]]:
    """Returns the parts in which an answer is read, each with the answer's closing token; one for a short answer."""
    *said, end = answer
    ids = said_once(said, reading.run)
    if len(ids) <= reading.window:
        return [[*ids, end]]
    if reading.part is None:
        assert reading.step
        last = len(ids) - reading.window
        spans = [(start, start + reading.window) for start in (*range(0, last, reading.step), last)]
    else:
        spans = [*pairwise(_sentence_cuts(ids, reading.part, reading.stops))]
    return [[*ids[start:stop], end] for start, stop in spans]


def _sentence_cuts(ids: Sequence[int], size: int, stops: Sequence[int]) -> Iterator[int]:
    """Yields the places between the parts, and both ends. As many whole sentences as have room are a part, so that one
    that says something stands with few others.
    """
    cut = 0
    yield cut
    while len(ids) - cut > size:
        room = range(cut + size, cut, -1)
        cut = next((place for place in room if ids[place - 1] in stops), cut + size)
        yield cut
    yield len(ids)


def joined(parts: Logits) -> HeadOutputs:
    """Returns the logits of an answer from those of its parts. The more a part answers the question, the more it
    weighs: the logarithm of its weight is its logit of responsiveness.
    """
    if len(parts) == 1:
        only: HeadOutputs = parts[0]
        return only
    answering = parts[:, :, DIMENSIONS.index("responsiveness")].mean(1, dtype=np.float64)
    weights = np.exp(answering - answering.max())
    mean: HeadOutputs = np.tensordot(weights / weights.sum(), parts, 1).astype(np.float32)
    return mean
