"""Puts answers into rows and rows into runs: which answers share a row, and which rows share a forward."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from medreward.backends.base import trunks

ROW_TOKENS: Final = 256  # most tokens of several answers in a row: each is compared with all of them
ALIKE_TOKENS: Final = 16  # that two answers must begin with alike before the second is run from where it differs
LONGEST_TAIL: Final = 4  # rows' worth of tokens that may follow an answer with which others begin alike
RUN_TOKENS: Final = 16_384  # most tokens in a forward, what its rows look back on and padding included
PROMPT_TOKENS: Final = {"cpu": 4096, "cuda": RUN_TOKENS}  # the same of prompts: few of them fill a CPU, many its caches
ENOUGH: Final = 1024  # tokens that are worth a forward of their own; below, rows are padded instead
BLOCK: Final = 1024  # tokens of a long prompt or answer that run at a time, so that their length costs no memory
FILLER: Final = -1  # the owner of what fills a row up
NOBODY: Final = -2

Ids = Sequence[int]


def pieces_of(prompt: Ids, image_token: int) -> list[int]:
    """Returns where the pieces end in which a prompt is run: at its end, or, where much text follows its last image, at
    that image too and behind each whole block of the text."""
    behind = next((n for n, id_ in enumerate(reversed(prompt)) if id_ == image_token), len(prompt))
    head = len(prompt) - behind or BLOCK
    return [*range(head, len(prompt) - 1, BLOCK), len(prompt)] if behind > BLOCK else [len(prompt)]


@dataclass(frozen=True, slots=True)
class Packed:
    """A row of answers to one prompt, end to end. Each answer's tails follow it; they see it, and not each other.

    An answer that begins like an earlier one of the row has only its own end in it, which sees that beginning.
    """

    answers: list[int]  # their places among all answers to the prompt
    ids: list[int]
    offsets: list[int]  # of each token behind the prompt, as if its answer stood there alone
    owners: list[int]  # the answer or tail that each token is of
    parents: list[int]  # the answer that each token sees beside its own: a tail's is the one it follows
    reaches: list[int]  # how many of that answer's tokens it sees
    lasts: list[int]  # where each tail ends; without tails, each answer

    def append(self, ids: Ids, start: int, owner: int, parent: int) -> None:
        """Puts the ids at the end of the row. `start` is the offset of the first of them behind the prompt; so many
        tokens of the parent come before them.
        """
        self.ids.extend(ids)
        self.offsets.extend(range(start, start + len(ids)))
        self.owners.extend([owner] * len(ids))
        self.parents.extend([parent] * len(ids))
        self.reaches.extend([start] * len(ids))


def pack(answers: Sequence[Ids], tails: Sequence[Ids], most: int) -> list[Packed]:
    """Returns rows of at most `most` tokens, or of one answer that has more."""
    after = sum(map(len, tails))
    rows: list[Packed] = []
    rows_of: dict[int, Packed] = {}  # of answers that others begin like
    begin_like = trunks(answers, ALIKE_TOKENS) if most and not tails else [None] * len(answers)
    for index, (answer, begins_like) in enumerate(zip(answers, begin_like, strict=True)):
        if begins_like:
            trunk, shared = begins_like
            row = rows_of[trunk]
            if len(row.ids) + len(answer) - shared <= len(answers[trunk]) + LONGEST_TAIL * most:
                row.answers.append(index)
                row.append(answer[shared:], shared, index, trunk)
                row.lasts.append(len(row.ids) - 1)
                continue
        if not rows or len(rows[-1].ids) + len(answer) + after > most:
            rows.append(Packed([], [], [], [], [], [], []))
        row, owner = rows[-1], index * (1 + len(tails))
        rows_of[index] = row
        row.answers.append(index)
        row.append(answer, 0, owner, NOBODY)
        for place, tail in enumerate(tails, 1):
            row.append(tail, len(answer), owner + place, owner)
            row.lasts.append(len(row.ids) - 1)
        if not tails:
            row.lasts.append(len(row.ids) - 1)
    return rows


def runs(lengths: Sequence[int], behind: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yields the indices of rows of like lengths that share a forward, which has at most `most` tokens, or one row.

    `behind` is how many tokens each row looks back on.
    """
    run: list[int] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = max(longest, behind[index])
        full = (longest + lengths[index]) * (len(run) + 1) > most
        unlike = run and lengths[index] > 1.2 * lengths[run[0]] and lengths[run[0]] * len(run) >= ENOUGH
        if run and (full or unlike):
            yield run
            run, longest = [], behind[index]
        run.append(index)
    if run:
        yield run


def pad(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Returns the rows as one tensor, each filled up to the longest."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
