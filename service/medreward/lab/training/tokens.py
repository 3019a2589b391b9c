"""Texts to padded ids by the server's own encoder, in a few fixed lengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from medreward.backends.reading import said_once
from medreward.encoding.text import EncodedText, FileTokenizer, TextEncoder
from medreward.types import Options, TooLong

PROMPT: Final = ("[CLS]", "{question}", "[SEP]")
ANSWER: Final = ("{response}", "[SEP]")
CUT: Final = Options(too_long=TooLong.CUT_MIDDLE)
MANY: Final = 10**6
STEP: Final = 8  # the rows of a length are padded to a multiple
LONGEST_QUESTION: Final = 3 / 5  # of the tokens of a training row


@dataclass(frozen=True, slots=True)
class Padded:
    """Rows of one length, and blank ones behind them, so that few shapes occur."""

    rows: Tensor  # where the first ones stand in the batch
    ids: Tensor
    mask: Tensor


class Tokens:
    def __init__(self, tokenizer: Path, max_tokens: int, buckets: Sequence[int], run: int) -> None:
        self._tokenizer = FileTokenizer(tokenizer)
        self.separator = self._tokenizer.control_tokens["[SEP]"]
        self._start = self._tokenizer.control_tokens["[CLS]"]
        self._texts = TextEncoder(self._tokenizer, PROMPT, ANSWER, MANY, MANY)
        self._max_tokens = max_tokens
        self._run = run
        self._max_prompt = int(max_tokens * LONGEST_QUESTION)
        self._buckets = sorted({min(bucket, max_tokens) for bucket in (*buckets, max_tokens)})

    def row(self, question: str, response: str) -> list[int]:
        prompt = self._texts.prompt(question)
        if len(prompt.ids) > self._max_prompt:
            prompt = EncodedText([*prompt.ids[: self._max_prompt - 1], self.separator])
        *said, end = self._texts.answer(prompt, response, CUT).ids
        said = said_once(said, self._run)
        if (over := len(prompt.ids) + len(said) + 1 - self._max_tokens) > 0:
            middle = (len(said) - over) // 2
            said = [*said[:middle], *said[middle + over :]]
        return [*prompt.ids, *said, end]

    def sentence(self, text: str) -> list[int]:
        return [self._start, *self._tokenizer.encode(text)[: self._max_prompt], self.separator]

    def padded(self, rows: Sequence[Sequence[int]]) -> list[Padded]:
        lengths = np.array([len(row) for row in rows])
        bucket = np.searchsorted(self._buckets, lengths)
        return [
            _padded(rows, np.flatnonzero(bucket == place), self._buckets[place]) for place in np.unique(bucket).tolist()
        ]


def _padded(rows: Sequence[Sequence[int]], chosen: "np.typing.NDArray[np.int64]", length: int) -> Padded:
    ids = torch.zeros(-(-len(chosen) // STEP) * STEP, length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    mask[:, 0] = 1
    for place, row in enumerate(chosen):
        ids[place, : len(rows[row])] = torch.tensor(rows[row])
        mask[place, : len(rows[row])] = 1
    return Padded(torch.from_numpy(chosen), ids, mask)
