"""The methods on numbers that can be worked out by hand."""

import pytest
import torch

from medreward.lab.merging.methods import How, Method, resolve, trimmed

FIRST = torch.tensor([4.0, -3.0, 2.0, 0.0, 1.0])
SECOND = torch.tensor([2.0, 5.0, 0.0, 0.0, -1.5])


@pytest.mark.parametrize(
    ("method", "density", "weights", "expected"),
    [
        ("linear", 1.0, (1, 1), [3.0, 1.0, 1.0, 0.0, -0.25]),
        ("linear", 0.2, (3, 1), [3.5, -1.0, 1.5, 0.0, 0.375]),  # takes all, whatever the density
        ("ties", 1.0, (1, 1), [3.0, 5.0, 2.0, 0.0, -1.5]),  # the sign of the sum wins, and its side is averaged
        ("ties", 1.0, (3, 1), [3.5, -3.0, 2.0, 0.0, 1.0]),
        ("ties", 0.4, (1, 1), [3.0, 5.0, 0.0, 0.0, 0.0]),  # the two largest of each: 4 and -3, 2 and 5
        ("ram", 1.0, (1, 1), [3.0, 1.0, 2.0, 0.0, -0.25]),  # what one alone changes stays whole
        ("ram", 0.4, (1, 1), [3.0, 1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_a_merge_is_what_is_worked_out_by_hand(
    method: str, density: float, weights: tuple[float, float], expected: list[float]
) -> None:
    found = resolve([FIRST, SECOND], How(Method(method), weights, density), "a weight")
    assert found.delta.tolist() == pytest.approx(expected)


def test_the_scale_multiplies_what_was_merged() -> None:
    half, full = (resolve([FIRST, SECOND], How(Method.TIES, (1, 1), 1.0, scale), "w").delta for scale in (0.5, 1.0))
    assert torch.equal(half, full / 2)


def test_dropping_at_random_keeps_the_expected_change() -> None:
    ones = torch.ones(20_000)
    found = resolve([ones, ones], How(Method.DARE_TIES, (1, 1), density=0.25), "a weight")
    counted = [float(mask.float().mean()) for mask in found.counted]
    assert counted == pytest.approx([0.25, 0.25], abs=0.02)
    assert set(found.delta.tolist()) == {0.0, 4.0}
    again = resolve([ones, ones], How(Method.DARE_TIES, (1, 1), density=0.25), "a weight")
    other = resolve([ones, ones], How(Method.DARE_TIES, (1, 1), density=0.25), "another weight")
    assert torch.equal(found.delta, again.delta)
    assert not torch.equal(found.delta, other.delta)


def test_what_counts_is_told_for_each_expert() -> None:
    found = resolve([FIRST, SECOND], How(Method.TIES, (1, 1), 1.0), "w")
    assert [mask.int().tolist() for mask in found.counted] == [[1, 0, 1, 0, 0], [1, 1, 0, 0, 1]]


def test_trimming_keeps_the_largest_share() -> None:
    assert trimmed(FIRST, 0.4).tolist() == [4.0, -3.0, 0.0, 0.0, 0.0]
    assert trimmed(FIRST, 1.0) is FIRST
