"""The loss is that of the formulas, and a step's loss is the sum of its parts."""

from math import exp, log, nan

import pytest
import torch

from medreward.lab.vlm.examples import Example
from medreward.lab.vlm.loss import counts, step_loss
from medreward.lab.vlm.recipe import Loss

WINS = (1.0, 0.0, 0.5, nan, nan, nan)
PAIR = Example("", None, "q", ("a", "b"), WINS)
GRADED = Example("", None, "q", ("a",), grades=(nan, nan, nan, nan, nan, 0.25))
PLAIN = Loss(centring=0.0)


def loss_of(logits: list[list[float]], examples: list[Example], settings: Loss, heads: int = 1) -> float:
    of_heads = torch.tensor(logits)[:, None].expand(-1, heads, -1)
    return float(step_loss(of_heads, examples, torch.ones(len(examples), heads), counts(examples), settings))


def softplus(value: float) -> float:
    return log(1 + exp(value))


def test_bradley_terry_is_averaged_over_what_is_told() -> None:
    first, second = [2.0, 2.0, 2.0, 9.0, 9.0, 9.0], [1.0, 1.0, 1.0, -9.0, -9.0, -9.0]
    tie = 0.5 * softplus(-1) + 0.5 * softplus(1)
    assert loss_of([first, second], [PAIR], PLAIN) == pytest.approx((softplus(-1) + softplus(1) + tie) / 3)
    assert loss_of([first, second], [PAIR], PLAIN, heads=3) == pytest.approx(loss_of([first, second], [PAIR], PLAIN))


def test_a_margin_asks_for_more_but_not_of_a_tie_and_a_rows_own_counts_more() -> None:
    first, second = [2.0] * 6, [1.0] * 6
    tie = 0.5 * softplus(-1) + 0.5 * softplus(1)
    wanted = (softplus(-1 + 0.5) + softplus(1 + 0.5) + tie) / 3
    own = Example("", None, "q", ("a", "b"), WINS, margin=0.5)
    assert loss_of([first, second], [PAIR], Loss(centring=0.0, margin=0.5)) == pytest.approx(wanted)
    assert loss_of([first, second], [own], Loss(centring=0.0, margin=3.0)) == pytest.approx(wanted)


def test_centring_pulls_both_answers_to_zero_on_every_dimension() -> None:
    first, second = [3.0] * 6, [1.0] * 6
    apart = loss_of([first, second], [PAIR], Loss(centring=0.1)) - loss_of([first, second], [PAIR], PLAIN)
    assert apart == pytest.approx(0.1 * 16)


def test_a_grade_is_what_the_sigmoid_of_the_logit_should_be() -> None:
    wanted = 0.25 * softplus(-1) + 0.75 * softplus(1)
    assert loss_of([[9.0] * 5 + [1.0]], [GRADED], PLAIN) == pytest.approx(wanted)


def test_forwards_of_a_step_add_up_to_its_loss() -> None:
    torch.manual_seed(0)
    examples = [PAIR, GRADED, PAIR]
    logits = torch.randn(5, 2, 6, requires_grad=True)
    seen, of = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), counts(examples)
    whole = step_loss(logits, examples, seen, of, Loss())
    parts = [
        step_loss(logits[:3], examples[:2], seen[:2], of, Loss()),
        step_loss(logits[3:], examples[2:], seen[2:], of, Loss()),
    ]
    assert sum(part.item() for part in parts) == pytest.approx(whole.item(), abs=1e-6)
    (told,) = torch.autograd.grad(step_loss(logits, examples, seen, of, PLAIN), logits)
    assert told[0, 0].any()
    assert not told[0, 1].any(), "a head learns from an example that it does not see"
