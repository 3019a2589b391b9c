"""When the client tries again; on a clock of the test's own."""

import pytest

from medreward.clients.retries import LONGEST_PAUSE_S, Attempts, Patience, RetryBudget


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_pauses_double_up_to_a_bound(clock: Clock) -> None:
    attempts = Attempts(RetryBudget(Patience(), clock), random=lambda: 1.0)
    assert [attempts.pause() for _ in range(8)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, LONGEST_PAUSE_S])


def test_a_pause_is_anything_down_to_none(clock: Clock) -> None:
    attempts = Attempts(RetryBudget(Patience(), clock), random=lambda: 0.0)
    assert attempts.pause() == 0


def test_the_servers_word_is_a_lower_bound(clock: Clock) -> None:
    attempts = Attempts(RetryBudget(Patience(), clock), random=lambda: 0.5)
    assert attempts.pause(7.0) == pytest.approx(7.05)


def test_patience_ends(clock: Clock) -> None:
    attempts = Attempts(RetryBudget(Patience(seconds=10), clock), random=lambda: 0.0)
    clock.now += 9.9
    assert attempts.pause() == 0
    assert attempts.pause(retry_after=1) is None
    clock.now += 0.2
    assert attempts.pause() is None


def test_a_storm_is_spread_over_time_and_nothing_is_refused(clock: Clock) -> None:
    budget = RetryBudget(Patience(retries_per_second=10, burst=5), clock)
    waits = [budget.take() for _ in range(25)]
    assert waits[:5] == [0] * 5
    assert waits[5:] == pytest.approx([n / 10 for n in range(1, 21)])


def test_the_budget_fills_with_time_up_to_its_burst(clock: Clock) -> None:
    budget = RetryBudget(Patience(retries_per_second=10, burst=5), clock)
    for _ in range(5):
        budget.take()
    clock.now += 0.2
    assert [budget.take() for _ in range(3)] == pytest.approx([0, 0, 0.1])
    clock.now += 1000
    assert [budget.take() for _ in range(6)] == pytest.approx([0] * 5 + [0.1])
