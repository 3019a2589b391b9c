"""Puts answers into bundles and bundles into runs: what must run together, and what does to fill a device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from medreward.backends.base import alike, trunks

ALIKE_TOKENS: Final = 16  # that two answers must begin with alike before the second is run from where it differs
RUN_TOKENS: Final = {"cpu": 1024, "cuda": 16_384}  # most tokens of answers in a forward: more do not fit a CPU's caches
PROMPT_TOKENS: Final = {"cpu": 4096, "cuda": 16_384}  # the same of prompts, padding included
BLOCK: Final = 1024  # tokens of a long prompt or answer that run at a time, so that their length costs no memory
ENOUGH: Final = 1024  # tokens that are worth a forward of their own; below, prompts are padded instead

Ids = Sequence[int]


def pieces_of(prompt: Ids, image_token: int) -> list[int]:
    """Returns where the pieces end in which a prompt is run: at its end, or, where much text follows its last image, at
    that image too and behind each whole block of the text."""
    behind = next((n for n, id_ in enumerate(reversed(prompt)) if id_ == image_token), len(prompt))
    head = len(prompt) - behind or BLOCK
    return [*range(head, len(prompt) - 1, BLOCK), len(prompt)] if behind > BLOCK else [len(prompt)]


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
    that begin alike, as long as all but the first add at most `most` tokens. With 0, no answer sees another.
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
    of_trunk: dict[int, Bundle] = {}  # the latest bundle of answers that begin like this one
    begin_like = trunks(answers, ALIKE_TOKENS) if most else [None] * len(answers)
    for place, (answer, begins_like) in enumerate(zip(answers, begin_like, strict=True)):
        if begins_like:
            bundle = of_trunk[begins_like[0]]
            shared = alike(bundle[0].ids, answer)
            if tokens(bundle) + len(answer) - shared <= len(bundle[0].ids) + most:
                bundle.append(Branch(place, answer[shared:], shared, parent=0))
                continue
        found.append([Branch(place, answer)])
        of_trunk[begins_like[0] if begins_like else place] = found[-1]
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


def padded_runs(lengths: Sequence[int], most: int, equal: bool = False) -> Iterator[list[int]]:
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
