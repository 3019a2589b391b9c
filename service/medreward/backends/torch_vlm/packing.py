"""Token ids to rows: which answers share a row, which rows a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

ROW_TOKENS: Final = 256  # most tokens of several answers in a row: each is compared with all of them
RUN_TOKENS: Final = 16_384  # most tokens in a forward, what its rows look back on and padding included
PROMPT_TOKENS: Final = {"cpu": 4096, "cuda": RUN_TOKENS}  # the same of prompts: few of them fill a CPU, many its caches
ENOUGH: Final = 1024  # tokens that are worth a forward of their own; below, rows are padded instead
FILLER: Final = -1  # the owner of what fills a row up
NOBODY: Final = -2

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class Packed:
    """Answers to one prompt end to end, each followed by its tails, which see it but not each other."""

    answers: list[int]  # which
    ids: list[int]
    offsets: list[int]  # of each token behind the prompt, as if its answer stood there alone
    owners: list[int]  # the answer or tail that each token is of
    parents: list[int]  # what a tail's token sees beside its own: its answer
    lasts: list[int]  # where each tail ends; without tails, each answer


def packed(answers: Sequence[Ids], tails: Sequence[Ids], most: int) -> list[Packed]:
    """Rows of at most so many tokens, or of one answer each."""
    after = sum(map(len, tails))
    return [_row(answers, tails, run) for run in _fitting([len(answer) + after for answer in answers], most)]


def _fitting(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    row: list[int] = []
    for index, length in enumerate(lengths):
        if row and sum(lengths[i] for i in row) + length > most:
            yield row
            row = []
        row.append(index)
    if row:
        yield row


def _row(answers: Sequence[Ids], tails: Sequence[Ids], chosen: list[int]) -> Packed:
    row = Packed(chosen, [], [], [], [], [])
    for index in chosen:
        owner = index * (1 + len(tails))
        _append(row, answers[index], 0, owner, NOBODY)
        for place, tail in enumerate(tails, 1):
            _append(row, tail, len(answers[index]), owner + place, owner)
            row.lasts.append(len(row.ids) - 1)
        if not tails:
            row.lasts.append(len(row.ids) - 1)
    return row


def _append(row: Packed, ids: Ids, start: int, owner: int, parent: int) -> None:
    row.ids.extend(ids)
    row.offsets.extend(range(start, start + len(ids)))
    row.owners.extend([owner] * len(ids))
    row.parents.extend([parent] * len(ids))


def runs(lengths: Sequence[int], behind: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices of rows of like lengths, for a forward each of at most so many tokens, or of one row; `behind` is what
    each row looks back on.
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


def padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
