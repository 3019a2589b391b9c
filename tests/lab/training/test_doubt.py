"""What is served as uncertainty: large where nothing speaks for or against an answer."""

import pytest
import torch

from medreward.lab.training.scorer import SHARPNESS, Head
from medreward.types import DIMENSIONS

ACCURACY, RELEVANCE = DIMENSIONS.index("accuracy"), DIMENSIONS.index("relevance")


def doubts(agreed: list[float], logit: float = 0.0) -> torch.Tensor:
    agreement = torch.tensor(agreed)[:, None].expand(-1, 8) / SHARPNESS
    return Head(8).doubt(torch.full((len(agreed), len(DIMENSIONS)), logit), agreement)


def test_accuracy_is_doubted_where_the_guess_says_nothing_whatever_the_logits_say() -> None:
    against, hardly, silent, agreeing = doubts([-4.0, 0.5, 0.0, 4.0], logit=5.0)[:, ACCURACY].tolist()
    assert silent == 1.0
    assert silent > hardly > agreeing == pytest.approx(against)


def test_manners_are_doubted_where_their_own_logits_say_nothing() -> None:
    undecided, decided = (doubts([3.0], logit)[0, RELEVANCE].item() for logit in (0.0, 100.0))
    assert undecided == 1.0
    assert decided == pytest.approx(0.0, abs=1e-9)
