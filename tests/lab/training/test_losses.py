import pytest
import torch

from medreward.lab.training.attributes import attribute_loss
from medreward.lab.training.losses import SMOOTHING, grade_loss, hold_loss, pair_loss, win_chances

UNKNOWN = float("nan")


def pairs(better: list[float], ahead: float) -> torch.Tensor:
    """The loss of one pair of rows whose logits lie so far apart on every dimension."""
    logits = torch.stack([torch.full((6,), ahead), torch.zeros(6)])
    return pair_loss(logits, torch.tensor([[0, 1]]), torch.tensor([better]), torch.ones(1))


def test_equal_answers_win_half_the_time_and_no_answer_always() -> None:
    chances = win_chances(torch.tensor([0.0, 1.0, -1.0]))
    assert chances.tolist() == pytest.approx([0.5, 1 - SMOOTHING, SMOOTHING])


def test_the_better_answer_is_to_be_ahead() -> None:
    assert pairs([1.0] * 6, 2.0) < pairs([1.0] * 6, 0.0) < pairs([1.0] * 6, -2.0)


def test_equal_answers_are_to_be_level() -> None:
    assert pairs([0.0] * 6, 0.0) < pairs([0.0] * 6, 1.0)


def test_what_is_not_known_teaches_nothing() -> None:
    logits = torch.zeros(2, 6, requires_grad=True)
    better = torch.tensor([[1.0, *[UNKNOWN] * 5]])
    torch.autograd.backward(pair_loss(logits, torch.tensor([[0, 1]]), better, torch.ones(1)))
    assert logits.grad is not None
    assert logits.grad[..., 0].abs().min() > 0
    assert logits.grad[..., 1:].abs().max() == 0
    assert float(pairs([UNKNOWN] * 6, 1.0)) == 0.0


def test_a_known_grade_draws_the_score_to_it() -> None:
    grades = torch.tensor([[1.0, *[UNKNOWN] * 5]])
    high, low = torch.full((1, 6), 3.0), torch.full((1, 6), -3.0)
    assert grade_loss(high, grades) < grade_loss(low, grades)
    assert float(grade_loss(high, torch.full((1, 6), UNKNOWN))) == 0.0


def test_an_answer_competes_with_its_rivals_only() -> None:
    logits = torch.tensor([[1.0, 0.0, 50.0]])
    rivals = torch.tensor([[True, True, False]])
    alone = attribute_loss(logits[:, :2], torch.tensor([0]), rivals[:, :2])
    assert torch.isclose(attribute_loss(logits, torch.tensor([0]), rivals), alone)


def test_a_score_is_held_to_what_a_teacher_says_of_the_dimensions_that_are_named() -> None:
    told = torch.zeros(1, 6)
    weights = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert hold_loss(told, told, weights) == 0.0
    near, far, beside = (torch.zeros(1, 6) for _ in range(3))
    near[0, 0], far[0, 0], beside[0, 5] = 0.5, 2.0, 9.0
    assert 0.0 < hold_loss(near, told, weights) < hold_loss(far, told, weights)
    assert hold_loss(beside, told, weights) == 0.0
