"""A simulated fleet: nothing is lost, and what is known of queues comes out."""

from dataclasses import replace
from itertools import pairwise

import pytest

from medreward.scale.autoscaling import Autoscaler
from medreward.scale.simulation import RULES, Device, Fault, Rule, Simulation
from medreward.scale.traffic import Ask, Size, screening, together, training
from medreward.types import Lane

SIZE = Size(image=1000, question=50, answer=100)
DEVICE = Device(fixed_s=0.02, per_token_s=1 / 20_000, batch_cost=8_000, images=400)
GROUP_S = SIZE.group(8) / DEVICE.tokens_per_second


def asks(groups: int, of_capacity: float, replicas: int, images: int = 300, burst: int = 32) -> list[Ask]:
    rate = of_capacity * replicas / GROUP_S
    return [*training(rate, burst, 8, SIZE, images, groups / rate)]


def test_a_single_group_takes_what_the_device_says() -> None:
    outcome = Simulation(DEVICE, 1).run([Ask(0.0, "a", 8, 1000, 50, 100)])
    assert outcome.p99(Lane.BULK) == pytest.approx(0.02 + 1850 / 20_000)
    again = Simulation(DEVICE, 1).run([Ask(0.0, "a", 8, 1000, 50, 100), Ask(9.0, "a", 8, 1000, 50, 100)])
    assert min(again.latencies[Lane.BULK]) == pytest.approx(0.02 + 850 / 20_000)  # the image was in the cache
    assert again.hit_rate == 0.5


@pytest.mark.parametrize("replicas", [1, 4, 16])
def test_replicas_do_as_many_times_the_work(replicas: int) -> None:
    flood = [Ask(0.0, f"image {n}", 8, 1000, 50, 100) for n in range(60 * replicas)]
    outcome = Simulation(DEVICE, replicas).run(flood)
    assert outcome.unanswered == 0
    assert outcome.triples_per_second == pytest.approx(8 * replicas / GROUP_S, rel=0.2)


def test_hashing_finds_images_in_caches_that_turns_do_not() -> None:
    """Six replicas can keep all images together, and none of them can keep all."""
    hit_rates = {}
    for rule in RULES:
        outcome = Simulation(Device(0.02, 1 / 20_000, 8_000, images=60), 6, rule).run(asks(1500, 0.6, 6))
        assert outcome.unanswered == 0
        hit_rates[rule] = outcome.hit_rate
    assert hit_rates["round robin"] < 0.3
    assert hit_rates["bounded hash"] > 0.5
    assert hit_rates["hash"] > 0.6


@pytest.mark.parametrize("rule", RULES)
def test_dead_and_slow_replicas_lose_and_double_nothing(rule: Rule) -> None:
    asked = asks(800, 0.5, 4)
    end = asked[-1].at
    faults = [Fault(0, end / 4, end / 2), Fault(1, end / 3, end * 2 / 3, slower=10.0)]
    outcome = Simulation(DEVICE, 4, rule, faults).run(asked)
    assert outcome.unanswered == 0
    assert outcome.triples == sum(ask.responses for ask in asked)
    assert outcome.retries["dead"]


def test_a_slow_replica_costs_the_others_little_where_it_is_left_out() -> None:
    asked = asks(800, 0.5, 4, burst=4)
    slow = Fault(1, 0.0, asked[-1].at, slower=10.0)
    p99 = {rule: Simulation(DEVICE, 4, rule, [slow]).run(asked).p99(Lane.BULK, 0.9) or 0.0 for rule in RULES}
    sound = Simulation(DEVICE, 4).run(asked).p99(Lane.BULK, 0.9) or 0.0
    assert p99["bounded hash"] < 3 * sound


def test_an_overloaded_fleet_refuses_and_answers_all_in_the_end() -> None:
    small = Device(0.02, 1 / 20_000, 8_000, queue_cost=20_000)
    outcome = Simulation(small, 2).run(asks(300, 3.0, 2))
    assert outcome.retries["overloaded"]
    assert outcome.unanswered == 0


def test_screening_is_answered_soon_beside_a_trainers_bursts() -> None:
    trained = asks(400, 0.7, 2, burst=64)
    beside = screening(200_000, SIZE, trained[-1].at, start=43_200)
    outcome = Simulation(DEVICE, 2).run([*together(trained, beside)])
    screened, bulk = outcome.p99(Lane.INTERACTIVE), outcome.p99(Lane.BULK)
    assert len(outcome.latencies[Lane.INTERACTIVE]) > 50
    assert screened is not None
    assert bulk is not None
    assert screened < 1.0 < bulk


def test_scaling_on_queued_cost_follows_the_hours_and_not_every_burst() -> None:
    """Bursts come every minute, so that the queue is long and empty in turns. No pod that was added goes within the
    window, and there are few changes; without a window there is one with every burst."""
    slow = Device(0.02, 1 / 2_000, 8_000)
    busy = [*training(2.5, 150, 8, SIZE, 5_000, 1_500)]
    quiet = [replace(ask, at=1_500 + ask.at) for ask in training(0.3, 20, 8, SIZE, 5_000, 1_500, seed=1)]
    outcomes = {}
    for window in (300.0, 0.0):
        scaler = Autoscaler(queue_cost=40_000, least=1, most=12, down_seconds=window)
        outcomes[window] = Simulation(slow, 1, autoscaler=scaler, start_seconds=30).run([*busy, *quiet])
        assert outcomes[window].unanswered == 0
    pods = outcomes[300.0].pods
    assert max(count for _, count in pods) >= 4
    assert pods[-1][1] <= 2
    rises = [at for (_, before), (at, after) in pairwise(pods) if after > before]
    falls = [at for (_, before), (at, after) in pairwise(pods) if after < before]
    assert all(fall - rise >= 300 for rise in rises for fall in falls if fall > rise)
    assert outcomes[300.0].turns <= 8
    assert outcomes[0.0].turns > 30


def test_pods_stay_while_nobody_can_tell_the_queue() -> None:
    scaler = Autoscaler(queue_cost=1_000, least=1, most=20, down_seconds=60, fallback=2)
    assert scaler.look(0, 4, 8_000) == 8
    for look in range(1, 100):
        assert scaler.look(15.0 * look, 8, None) == 8
    assert scaler.look(1_500, 8, 0.0) == 8  # the window after the silence
    assert scaler.look(1_600, 8, 0.0) == 1


def test_the_rule_is_that_of_kubernetes() -> None:
    scaler = Autoscaler(queue_cost=1_000, least=1, most=20, down_seconds=300)
    assert scaler.look(0, 4, 4_300) == 4  # within the tolerance
    assert scaler.look(15, 4, 4_500) == 5
    assert scaler.look(30, 5, 90_000) == 10  # no more than twice as many at once
    assert scaler.look(45, 10, 0) == 10  # more was wanted within the last five minutes
    assert scaler.look(400, 10, 0) == 1
