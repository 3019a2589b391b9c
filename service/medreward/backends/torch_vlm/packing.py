"""Puts answers into bundles and bundles into runs: what must run together, and what does to fill a device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

ALIKE_TOKENS: Final = 16  # that two answers must begin with alike before the second is run from where it differs
RUN_TOKENS: Final = {"cpu": 1024, "cuda": 16_384}  # most tokens of answers in a forward: more do not fit a CPU's caches
PROMPT_TOKENS: Final = {"cpu": 4096, "cuda": 16_384}  # the same of prompts, padding included
ENOUGH: Final = 1024  # tokens that are worth a forward of their own; below, prompts are padded instead

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class Branch:
    """Tokens behind a prompt: an answer, what an answer has of its own behind another's beginning, or an answer's tail.

    A branch sees the prompt, the beginning of its parent, and itself up to each token, as if nothing else were there.
    """

    answer: int  # its place among all answers to the prompt
    ids: Ids
    start: int = 0  # how many tokens of its parent it sees: so many lie between the prompt and its first token
    parent: int | None = None  # the parent's place in the bundle
    is_end: bool = True  # whether the state behind its last token is asked for


Bundle = list[Branch]


def bundles(answers: Sequence[Ids], tails: Sequence[Ids], most: int) -> list[Bundle]:
    """Returns the branches of all answers, those together that see one another: an answer and its tails, or answers
    that begin alike, as long as they have at most `most` tokens. With 0, no answer sees another.
    """
    if tails:
        return [
            [
                Branch(place, answer, is_end=False),
                *(Branch(place, tail, start=len(answer), parent=0) for tail in tails),
            ]
            for place, answer in enumerate(answers)
        ]
    found: list[Bundle] = []
    beginnings: dict[tuple[int, ...], Bundle] = {}  # the latest bundle with each beginning
    for place, answer in enumerate(answers):
        beginning = tuple(answer[:ALIKE_TOKENS])
        bundle = beginnings.get(beginning)
        if bundle:
            shared = _alike(bundle[0].ids, answer)
            if tokens(bundle) + len(answer) - shared <= most:
                bundle.append(Branch(place, answer[shared:], shared, parent=0))
                continue
        found.append([Branch(place, answer)])
        if len(answer) > ALIKE_TOKENS:
            beginnings[beginning] = found[-1]
    return found


def tokens(bundle: Bundle) -> int:
    """Returns how many tokens the bundle has a forward run."""
    return sum(len(branch.ids) for branch in bundle)


def filled(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Yields the indices of neighbours that share a forward, which has at most `most` tokens, or one bundle."""
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and total + size > most:
            yield range(start, index)
            start, total = index, 0
        total += size
    if sizes:
        yield range(start, len(sizes))


def alike(lengths: Sequence[int], most: int, equal: bool = False) -> Iterator[list[int]]:
    """Yields the indices of rows of like lengths, or of equal ones, that share a forward of at most `most` tokens, or
    of one row.
    """
    run: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        shortest = lengths[run[0]] if run else 0
        full = lengths[index] * (len(run) + 1) > most
        unlike = lengths[index] > 1.2 * shortest and shortest * len(run) >= ENOUGH
        if run and (full or unlike or (equal and lengths[index] > shortest)):
            yield run
            run = []
        run.append(index)
    if run:
        yield run


def pad(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Returns the rows as one tensor, each filled up to the longest."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])


def _alike(one: Ids, other: Ids) -> int:
    """Returns with how many tokens both begin alike, of which the other has at least one more."""
    pairs = enumerate(zip(one, other[:-1], strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other) - 1))
