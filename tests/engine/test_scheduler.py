import asyncio

import numpy as np
import pytest

from medreward.backends.base import Group
from medreward.engine.scheduler import Answer, Scheduler, Waiting
from medreward.errors import Code, ItemError
from medreward.types import Lane

GROUP = Group(None, (1,), ((2,),))


def waiting(cost: int) -> Waiting:
    return Waiting(GROUP, cost, Lane.BULK, 0.0, asyncio.get_running_loop().create_future())


async def test_work_comes_out_in_the_order_it_came_in() -> None:
    scheduler = Scheduler(queue_cost=100, batch_cost=10)
    works = [waiting(4) for _ in range(5)]
    for work in works:
        scheduler.put(work)
    assert [scheduler.next_batch() for _ in range(4)] == [works[:2], works[2:4], works[4:], []]


async def test_work_larger_than_a_batch_runs_alone() -> None:
    scheduler = Scheduler(queue_cost=100, batch_cost=10)
    small, large = waiting(1), waiting(50)
    scheduler.put(small)
    scheduler.put(large)
    assert [scheduler.next_batch(), scheduler.next_batch()] == [[small], [large]]


async def test_work_nobody_waits_for_is_dropped() -> None:
    scheduler = Scheduler(queue_cost=100, batch_cost=10)
    left, answered, wanted = waiting(9), waiting(9), waiting(9)
    for work in (left, answered, wanted):
        scheduler.put(work)
    left.answer.cancel()
    answered.answer.set_result(Answer(np.zeros((1, 1, 6), np.float32), 0, 0))
    assert scheduler.next_batch() == [wanted]


def test_more_cost_than_the_queue_holds_is_refused_until_some_is_done() -> None:
    scheduler = Scheduler(queue_cost=10, batch_cost=10)
    scheduler.admit(6)
    with pytest.raises(ItemError) as refused:
        scheduler.admit(5)
    assert refused.value.code is Code.OVERLOADED
    scheduler.release(6)
    scheduler.admit(5)
    assert scheduler.admitted == 5


def test_an_idle_server_takes_work_of_any_cost() -> None:
    scheduler = Scheduler(queue_cost=10, batch_cost=10)
    scheduler.admit(1000)
    assert scheduler.admitted == 1000
