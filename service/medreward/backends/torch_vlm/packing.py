"""Token ids to rows: which answers share a row, which rows a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

ROW_TOKENS: Final = (
    2048  # most tokens of several answers in a row: each is compared with all of them
)


@dataclass(frozen=True, slots=True)
class Packed:
    """Answers to one prompt, end to end."""

    answers: list[int]  # which
    ids: list[int]
    offsets: list[int]  # of each token within its answer
    owners: list[int]  # the answer of each token
    lasts: list[int]  # where each answer ends


def packed(answers: Sequence[Sequence[int]]) -> list[Packed]:
    return [_row(answers, run) for run in _fitting([len(answer) for answer in answers])]


def _fitting(lengths: Sequence[int]) -> Iterator[list[int]]:
    row: list[int] = []
    for index, length in enumerate(lengths):
        if row and sum(lengths[i] for i in row) + length > ROW_TOKENS:
            yield row
            row = []
        row.append(index)
    if row:
        yield row


def _row(answers: Sequence[Sequence[int]], chosen: list[int]) -> Packed:
    row = Packed(chosen, [], [], [], [])
    for index in chosen:
        row.ids.extend(answers[index])
        row.offsets.extend(range(len(answers[index])))
        row.owners.extend([index] * len(answers[index]))
        row.lasts.append(len(row.ids) - 1)
    return row


def runs(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices of like lengths, so that a run padded to its longest stays within the tokens."""
    run: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if run and lengths[index] * (len(run) + 1) > tokens:
            yield run
            run = []
        run.append(index)
    if run:
        yield run


def padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
