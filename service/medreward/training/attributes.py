"""What an image's questions say about it, as a task for the tower alone: which of the known answers is the right one?

Each answer competes only with answers to its own kind of question, so that findings known in one source are never
wrong answers elsewhere. Questions and answers enter as fixed sentence vectors.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medreward.training.attention import attend
from medreward.training.cases import Case, plain


class Attributes:
    """The cases as rows: question, answer, and the answers it competes with."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.questions = sorted({case.question for case in cases})
        spelled = {plain(case.answer): case.answer for case in cases}
        self.answers = [spelled[name] for name in sorted(spelled)]
        self._question = {text: place for place, text in enumerate(self.questions)}
        self._answer = {name: place for place, name in enumerate(sorted(spelled))}
        kinds = sorted({case.kind for case in cases})
        self._kind = {name: place for place, name in enumerate(kinds)}
        self.rivals = torch.zeros(len(kinds), len(self.answers), dtype=torch.bool)
        for case in cases:
            self.rivals[self._kind[case.kind], self._answer[plain(case.answer)]] = True

    def rows(self, cases: Sequence[Case]) -> NDArray[np.int64]:
        """[cases, (question, answer, kind)]"""
        return np.array(
            [
                (self._question[case.question], self._answer[plain(case.answer)], self._kind[case.kind])
                for case in cases
            ],
            np.int64,
        ).reshape(-1, 3)


class Asker(nn.Module):
    """Looks at the visual tokens with a question in mind and names the answer's vector."""

    def __init__(self, width: int, answers: int) -> None:
        super().__init__()
        self.heads = width // 32
        self.query = nn.Linear(width, width)
        self.look = nn.Linear(width, 2 * width)
        self.mix = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.own = nn.Parameter(0.02 * torch.randn(answers, width))
        self.translate = nn.Linear(width, width)

    def forward(self, tokens: Tensor, image: Tensor, questions: Tensor, answers: Tensor) -> Tensor:
        """Logits [rows, answers] of `questions` [rows, width] about the images of `image` [rows]."""
        n, count, width = tokens.shape
        packed = self.look(tokens).view(n, count, 2, self.heads, width // self.heads)[image]
        key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        query = self.query(questions).view(len(image), 1, self.heads, width // self.heads).transpose(1, 2)
        seen = attend(query, key, value)[:, 0]
        named = nn.functional.normalize(self.mix(torch.cat([seen, questions], 1)).to(torch.float32), dim=1)
        known = nn.functional.normalize(self.translate(answers).to(torch.float32) + self.own, dim=1)
        logits: Tensor = 16.0 * named @ known.T
        return logits


def attribute_loss(logits: Tensor, answers: Tensor, rivals: Tensor) -> Tensor:
    """Cross entropy among the rivals, the same weight for a choice of two as for one of a thousand."""
    among = logits.masked_fill(~rivals, -1e4)
    loss = nn.functional.cross_entropy(among, answers, reduction="none")
    return (loss / rivals.sum(1).clamp(min=2).log2()).mean()
