"""The sequential test: how often it alarms without cause, and how soon with one. All runs are drawn from a seed."""

from random import Random

import pytest

from drifting import sigmoid
from medreward.screening.evidence import EventWatch, ScoreWatch, Stakes

LIMIT = 10.0  # so that a run may alarm without cause in one of ten


def first_alarm(watch: ScoreWatch | EventWatch, values: list[float]) -> int | None:
    for value in values:
        watch.see(value)
    return watch.alarm_at


def test_stationary_scores_alarm_in_at_most_the_stated_share_of_runs() -> None:
    random = Random(1)
    runs = 100
    alarms = sum(
        first_alarm(ScoreWatch(200, LIMIT, random), [random.betavariate(2, 5) for _ in range(1200)]) is not None
        for _ in range(runs)
    )
    assert 0 < alarms <= 0.1 * runs  # a test that never alarms would be none


def test_stationary_events_alarm_in_at_most_the_stated_share_of_runs() -> None:
    random = Random(2)
    runs = 150
    alarms = sum(
        first_alarm(EventWatch(200, LIMIT), [random.random() < 0.04 for _ in range(1500)]) is not None
        for _ in range(runs)
    )
    assert 0 < alarms <= 0.1 * runs


def test_stakes_are_worth_what_was_put_in_while_every_bet_is_even() -> None:
    stakes = Stakes(3)
    for _ in range(10_000):
        stakes.multiply([1.0, 1.0, 1.0])
    assert stakes.worth == pytest.approx(1)


@pytest.mark.parametrize(
    ("before", "shift", "change"), [(0, 0.3, "higher"), (3000, 0.3, "higher"), (500, -0.3, "lower")]
)
def test_a_shift_is_found_and_named(before: int, shift: float, change: str) -> None:
    random = Random(3)
    limit = 1600.0  # that of a server: sixteen watches, one run of a hundred
    for _ in range(3):
        watch = ScoreWatch(1000, limit, random)
        same = [sigmoid(random.gauss(0, 1)) for _ in range(1000 + before)]
        moved = [sigmoid(random.gauss(shift, 1)) for _ in range(1000)]
        found = first_alarm(watch, same + moved)
        assert found is not None
        assert found > before
        assert watch.change == change


def test_a_wider_spread_is_found() -> None:
    random = Random(4)
    watch = ScoreWatch(1000, 1600, random)
    found = first_alarm(watch, [sigmoid(random.gauss(0, 1 if n < 1500 else 1.6)) for n in range(2500)])
    assert found is not None
    assert watch.change == "wider"


@pytest.mark.parametrize(("share", "later", "change"), [(0.02, 0.1, "more often"), (0.3, 0.1, "rarer")])
def test_an_event_that_changes_is_found(share: float, later: float, change: str) -> None:
    random = Random(5)
    watch = EventWatch(1000, 1600)
    found = first_alarm(watch, [random.random() < (share if n < 1500 else later) for n in range(2500)])
    assert found is not None
    assert 500 < found < 1500
    assert watch.change == change


def test_scores_at_the_ends_and_all_alike_are_no_change() -> None:
    watch = ScoreWatch(200, LIMIT, Random(6))
    assert first_alarm(watch, [0.0, 1.0] * 200) is None
    assert first_alarm(ScoreWatch(200, LIMIT, Random(6)), [0.5] * 1000) is None


def test_an_alarm_is_raised_once_and_stays() -> None:
    watch = EventWatch(200, LIMIT)
    raised = [watch.see(n >= 300) for n in range(2000)]
    assert sum(raised) == 1
    assert watch.alarm_at == raised.index(True) + 1 - 200
