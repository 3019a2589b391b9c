"""What an image's questions say about it, as a task for the tower alone: which of the known answers is the right one?

Each answer competes only with answers to its own kind of question, so that findings known in one source are never
wrong answers elsewhere. Questions and answers enter as fixed sentence vectors.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medreward.lab.training.cases import Case, plain

WAYS: Final = 3  # of saying each answer, besides the plain one


class Attributes:
    """Holds the cases as rows: question, answer, and the answers that it competes with."""

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
        """Returns the places [cases, (question, answer, kind)]."""
        return np.array(
            [
                (self._question[case.question], self._answer[plain(case.answer)], self._kind[case.kind])
                for case in cases
            ],
            np.int64,
        ).reshape(-1, 3)


def attribute_loss(logits: Tensor, answers: Tensor, rivals: Tensor) -> Tensor:
    """Returns the cross entropy among the rivals; a choice of two weighs as much as one of a thousand."""
    among = logits.masked_fill(~rivals, -1e4)
    loss = nn.functional.cross_entropy(among, answers, reduction="none")
    return (loss / rivals.sum(1).clamp(min=2).log2()).mean()
