"""Keeps the states of prompts in pieces, which prompts share: a long conversation runs once for two questions."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, takewhile

import torch

from medreward.backends.base import Group
from medreward.backends.torch_vlm.branching import Prefix
from medreward.caches import ByteCache


class KeptPrefixes:
    """States by image and prompt, bounded in bytes.

    A prompt is kept in as many pieces as it was run in, each under all that comes before its end. So the pieces of
    prompts that begin alike are those of a tree, whose nodes lie at the ends of whole blocks.
    """

    def __init__(self, max_bytes: int) -> None:
        self._pieces: ByteCache[Prefix] = ByteCache(max_bytes)

    def longest(self, group: Group, ends: Sequence[int]) -> tuple[Prefix | None, int]:
        """Returns the state of as much of the prompt as is kept, and how many of the `ends` of its pieces that
        reaches."""
        found = [self._pieces.get(key) for key in _keys(group, ends)]
        pieces = [*takewhile(lambda piece: piece is not None, found)]
        for key in reversed(_keys(group, ends[: len(pieces)])):  # what all the others need is dropped last
            self._pieces.get(key)
        known = [piece for piece in pieces if piece]
        return (_joined(known) if known else None), len(known)

    def put(self, group: Group, ends: Sequence[int], state: Prefix) -> None:
        """Keeps the state of the whole prompt."""
        images = state.length - len(group.prompt)  # tokens of images beyond their placeholders, in the first piece
        starts = [0, *(end + images for end in ends)]
        for key, end, (first, last) in zip(_keys(group, ends), ends, pairwise(starts), strict=True):
            if len(ends) == 1:
                self._pieces.put(key, state)
            elif self._pieces.get(key) is None:
                layers = [(k[:, first:last].clone(), v[:, first:last].clone()) for k, v in state.layers]
                self._pieces.put(key, Prefix(layers, state.start - (len(group.prompt) - end)))

    @property
    def bytes(self) -> int:
        return self._pieces.bytes

    def clear(self) -> None:
        self._pieces.clear()


def _keys(group: Group, ends: Sequence[int]) -> list[str]:
    return [replace(group, prompt=group.prompt[:end]).key for end in ends]


def _joined(pieces: Sequence[Prefix]) -> Prefix:
    if len(pieces) == 1:
        return pieces[0]
    layers = zip(*(piece.layers for piece in pieces), strict=True)
    whole = [(torch.cat([k for k, _ in layer], 1), torch.cat([v for _, v in layer], 1)) for layer in layers]
    return Prefix(whole, pieces[-1].start)
