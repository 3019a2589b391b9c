import random

import pytest

from medreward.engine.queue.batch_time import BatchTime


def test_it_learns_what_a_batch_costs_at_once_and_by_token() -> None:
    learned, noise = BatchTime(), random.Random(1)
    for _ in range(300):
        cost = noise.randrange(10, 10_000)
        learned.learn(cost, 0.02 + cost * 1e-5 + noise.gauss(0, 0.001))
    assert learned.fixed == pytest.approx(0.02, rel=0.1)
    assert learned.per_cost == pytest.approx(1e-5, rel=0.05)


def test_it_forgets_what_is_long_ago() -> None:
    learned = BatchTime()
    for seconds in (1.0,) * 500 + (0.1,) * 500:
        learned.learn(100, seconds)
    assert learned.fixed + 100 * learned.per_cost == pytest.approx(0.1, rel=0.01)


def test_neither_part_is_ever_negative() -> None:
    learned = BatchTime()
    for cost, seconds in ((10, 1.0), (1000, 0.1), (20, 0.9), (0, 0.0)):
        learned.learn(cost, seconds)
        assert learned.fixed >= 0
        assert learned.per_cost >= 0
