"""How many replicas Ray Serve is told to run."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from medreward.scale.policy import COST, QueuedCost

A_REPLICA = 1000.0


def context(now: int, costs: list[float] | None, running: int | None = None) -> Any:
    """What Ray gives a policy: the target, the replicas that run, and what each reported."""
    replicas = [f"replica {n}" for n in range(now if running is None else running)]
    reported = None if costs is None else {COST: dict(zip(replicas, costs, strict=False))}
    return SimpleNamespace(target_num_replicas=now, running_replicas=replicas, aggregated_metrics=reported)


def wanted(now: int, costs: list[float] | None, running: int | None = None) -> int:
    return QueuedCost(A_REPLICA)(context(now, costs, running))[0]


def test_it_grows_with_queued_cost_whatever_the_number_of_requests() -> None:
    assert wanted(1, [4500]) == 5
    assert wanted(2, [1000, 1000]) == 2


def test_it_shrinks_only_where_those_that_stay_would_have_much_less_than_their_part() -> None:
    assert wanted(4, [700] * 4) == 4  # 2.8 replicas' cost: three would be nearly full at once
    assert wanted(4, [200] * 4) == 2
    assert wanted(4, [0] * 4) == 1


def test_what_is_not_known_is_not_taken_for_idle() -> None:
    assert wanted(4, None) == 4
    assert wanted(4, [0, 0]) == 4  # two replicas are silent
    assert wanted(4, [0] * 4, running=0) == 4
    assert wanted(2, [9000]) == 9  # what is known is already too much


def test_a_load_of_bursts_does_not_start_and_end_replicas_by_turns() -> None:
    """A trainer asks for groups in bursts, a burst a minute for two hours. Ray holds a decision to shrink back until it
    has been the same for five minutes; here too."""
    policy, replicas, changes, queued = QueuedCost(A_REPLICA), 1, [0], 0.0
    since = 0
    for second in range(7200):
        queued += 6000 if second % 60 == 0 else 0
        queued -= min(queued, 150 * replicas)
        aim, _ = policy(context(replicas, [queued / replicas] * replicas))
        since = second if aim >= replicas else since
        if aim > replicas or (aim < replicas and second - since >= 300):
            changes.append(int(math.copysign(1, aim - replicas)))
            replicas = min(aim, 8)
    assert replicas > 1
    assert -1 not in changes


@pytest.mark.parametrize("wrong", [{"cost_per_replica": 0}, {"shrink_below": 1.0}])
def test_numbers_that_cannot_be_meant_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        QueuedCost(**wrong)
