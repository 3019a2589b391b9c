"""The policy alone: no loop, no clock, no device."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medreward.engine.queue.scheduler import INTERACTIVE_IN_A_ROW, GroupKey, Scheduler, Work
from medreward.errors import Code, ItemError
from medreward.types import Lane

FAR = 1e9


def work(
    cost: int = 1, image: str = "", tenant: str = "", lane: Lane = Lane.BULK, length: int = 0, deadline: float = FAR
) -> Work:
    return Work(GroupKey(lane, tenant, image, b""), (), (0,) * (length or cost), cost, 0.0, deadline)


def scheduler(batch_cost: int = 10, queue_cost: int = 1000, devices: int = 1, pads: bool = False) -> Scheduler[Work]:
    return Scheduler(queue_cost, batch_cost, devices, pads)


def filled(*works: Work, **how: Any) -> Scheduler[Work]:
    made = scheduler(**how)
    for one in works:
        made.put(one)
    return made


def batches(made: Scheduler[Work], now: float = 0.0, device: int = 0) -> list[list[list[Work]]]:
    found = []
    while batch := made.next_batch(now, device).batch:
        found.append(batch)
    return found


class TestBatches:
    def test_groups_come_out_in_the_order_they_came_in_as_much_as_a_batch_may_cost(self) -> None:
        works = [work(4, image=str(n)) for n in range(5)]
        assert batches(filled(*works)) == [[[works[0]], [works[1]]], [[works[2]], [works[3]]], [[works[4]]]]

    def test_answers_of_one_image_and_prompt_run_together_whenever_they_came(self) -> None:
        a1, b, a2 = work(1, image="a"), work(1, image="b"), work(1, image="a")
        assert batches(filled(a1, b, a2)) == [[[a1, a2], [b]]]

    def test_a_group_larger_than_a_batch_is_cut(self) -> None:
        works = [work(4, image="a") for _ in range(5)]
        assert batches(filled(*works)) == [[works[:2]], [works[2:4]], [works[4:]]]

    def test_work_larger_than_a_batch_runs_alone(self) -> None:
        large, small = work(50, image="a"), work(1, image="b")
        assert batches(filled(large, small)) == [[[large]], [[small]]]

    def test_a_padding_device_gets_lengths_that_fit_and_its_padding_counts(self) -> None:
        short1, long1, short2, long2 = (work(n, image=str(i)) for i, n in enumerate((2, 9, 3, 10)))
        made = Scheduler[Work](1000, 20, pads=True)
        for one in (short1, long1, short2, long2):
            made.put(one)
        assert batches(made) == [[[short1], [short2]], [[long1], [long2]]]

    def test_what_nobody_can_use_any_more_is_dropped_and_reported(self) -> None:
        left, late, wanted = work(9, image="a"), work(9, image="a", deadline=5.0), work(9, image="a")
        left.waiters = 0
        made = filled(left, late, wanted)
        cut = made.next_batch(now=6.0)
        assert (cut.batch, cut.dropped) == ([[wanted]], [left, late])
        assert made.waiting == 0

    def test_discarded_work_leaves_its_group_where_it_was(self) -> None:
        a1, b, a2 = work(6, image="a"), work(6, image="b"), work(6, image="a")
        made = filled(a1, b, a2)
        assert made.discard(a1)
        assert not made.discard(a1)
        assert batches(made) == [[[a2]], [[b]]]


class TestLanes:
    def test_interactive_work_goes_first_and_alone(self) -> None:
        bulk, urgent = work(1, image="a"), work(1, image="b", lane=Lane.INTERACTIVE)
        assert batches(filled(bulk, urgent)) == [[[urgent]], [[bulk]]]

    def test_bulk_work_fills_up_a_batch_whose_start_is_what_costs(self) -> None:
        urgent, bulk = work(1, image="b", lane=Lane.INTERACTIVE), [work(3, image=str(n)) for n in range(5)]
        made = filled(*bulk, urgent)
        for cost in (1, 10, 1, 10):
            made.time.learn(cost, 1.0 + 0.2 * cost)  # a token more is a fifth of a start
        assert batches(made)[0] == [[urgent], [bulk[0]]]

    def test_bulk_work_is_never_starved(self) -> None:
        made = filled(work(10, image="bulk"))
        for n in range(20):
            made.put(work(10, image=str(n), lane=Lane.INTERACTIVE))
        lanes = [batch[0][0].key.lane for batch in batches(made)]
        assert lanes.index(Lane.BULK) == INTERACTIVE_IN_A_ROW


class TestTenants:
    def test_a_small_tenant_does_not_wait_behind_a_large_one(self) -> None:
        large = [work(10, image=str(n), tenant="large") for n in range(10)]
        small = work(10, image="s", tenant="small")
        order = [batch[0][0] for batch in batches(filled(*large, small))]
        assert order.index(small) == 1

    def test_shares_are_of_cost_not_of_requests(self) -> None:
        heavy = [work(10, image=f"h{n}", tenant="heavy") for n in range(10)]
        light = [work(5, image=f"l{n}", tenant="light") for n in range(10)]
        made = filled(*heavy, *light, batch_cost=5)
        first = [batch[0][0].key.tenant for batch in batches(made)][:9]
        assert first.count("light") == 6

    def test_absence_earns_no_credit(self) -> None:
        made = filled(*(work(10, image=str(n), tenant="a") for n in range(6)))
        for _ in range(3):
            made.next_batch(0.0)
        for n in range(3):
            made.put(work(10, image=f"b{n}", tenant="b"))
        order = [batch[0][0].key.tenant for batch in batches(made)]
        assert order in (["a", "b", "a", "b", "a", "b"], ["b", "a", "b", "a", "b", "a"])

    def test_coming_and_going_earns_no_credit(self) -> None:
        made = filled(*(work(2, image=f"b{n}", tenant="b") for n in range(100)))
        served: Counter[str] = Counter()
        made.put(work(10, image="a", tenant="a"))
        for _ in range(30):
            for one in (one for group in made.next_batch(0.0).batch for one in group):
                served[one.key.tenant] += one.cost
                if one.key.tenant == "a":
                    made.put(work(10, image="a", tenant="a"))
        assert abs(served["a"] - served["b"]) <= 20


class TestDevices:
    def test_a_group_goes_home_and_an_idle_device_helps_out(self) -> None:
        works = [work(10, image=str(n)) for n in range(20)]
        first = {id(made.next_batch(0.0, d).batch[0][0]) for d in (0, 1) for made in [filled(*works, devices=2)]}
        assert len(first) == 2
        made = filled(*works, devices=2)
        assert len(batches(made, device=0)) == 20

    def test_a_device_that_is_down_does_not_starve_its_groups(self) -> None:
        made = filled(*(work(10, image=f"old{n}") for n in range(10)), devices=2)
        oldest = made.next_batch(0.0, 1).batch[0][0]
        made.put(oldest)
        taken = []
        for n in range(100):
            made.put(work(10, image=f"new{n}"))
            taken.append(made.next_batch(0.0, 0).batch[0][0])
        assert oldest in taken


class TestSuspects:
    def test_what_took_a_worker_down_runs_apart_in_halves_by_turns_with_the_others(self) -> None:
        works = [work(1, image="a") for _ in range(5)]
        made = filled(*(other := [work(10, image="b"), work(10, image="c"), work(10, image="d")]))
        made.put_suspects(works)
        ran = [[w for group in batch for w in group] for batch in batches(made)]
        assert ran == [works[:2], other[:1], works[2:], other[1:2], other[2:]]
        assert all(w.suspect for w in works)

    def test_a_single_suspect_is_tried_once_more(self) -> None:
        alone = work()
        made = scheduler()
        made.put_suspects([alone])
        assert batches(made) == [[[alone]]]


class TestAdmission:
    def test_more_cost_than_the_queue_holds_is_refused_until_some_is_done(self) -> None:
        made = scheduler(queue_cost=100)
        made.admit(80, Lane.BULK, 0.0, FAR)
        with pytest.raises(ItemError) as refused:
            made.admit(20, Lane.BULK, 0.0, FAR)
        assert refused.value.code is Code.OVERLOADED
        assert refused.value.retry_after == 1
        made.admit(20, Lane.INTERACTIVE, 0.0, FAR)
        made.release(80, Lane.BULK)
        made.admit(20, Lane.BULK, 0.0, FAR)
        assert made.room.taken == {Lane.BULK: 20, Lane.INTERACTIVE: 20}

    def test_an_idle_server_takes_work_of_any_cost(self) -> None:
        made = scheduler(queue_cost=10)
        made.admit(1000, Lane.BULK, 0.0, FAR)
        assert made.room.is_full(Lane.INTERACTIVE)

    def test_a_deadline_that_cannot_be_met_is_refused_at_the_door(self) -> None:
        made = scheduler(queue_cost=10_000, batch_cost=10)
        for _ in range(5):
            made.time.learn(cost=10, seconds=1.0)
        made.admit(50, Lane.BULK, 0.0, FAR)
        with pytest.raises(ItemError) as refused:
            made.admit(10, Lane.BULK, now=100.0, deadline=105.0)
        assert refused.value.code is Code.DEADLINE
        made.admit(10, Lane.BULK, now=100.0, deadline=107.0)
        made.admit(10, Lane.INTERACTIVE, now=100.0, deadline=102.0)  # does not wait behind bulk

    def test_more_devices_do_not_make_one_batch_shorter(self) -> None:
        made = scheduler(batch_cost=10, devices=4)
        made.time.learn(cost=10, seconds=1.0)
        with pytest.raises(ItemError):
            made.admit(10, Lane.BULK, now=0.0, deadline=0.9)
        made.room.taken[Lane.BULK] = 70
        assert made.seconds_until_done(Lane.BULK, 10) == pytest.approx(2.0)

    def test_nothing_is_refused_for_its_deadline_before_anything_was_measured(self) -> None:
        scheduler().admit(10, Lane.BULK, now=0.0, deadline=0.001)


LANES = st.sampled_from(Lane)
WORKS = st.builds(
    work,
    cost=st.integers(1, 25),
    image=st.sampled_from("abcdef"),
    tenant=st.sampled_from(("", "ward", "lab")),
    lane=LANES,
    length=st.integers(1, 40),
    deadline=st.sampled_from((1.0, 2.0, 3.0, FAR)),
)


class TestWhateverComes:
    @given(st.lists(WORKS | st.sampled_from(("run", "lose", "leave", "discard")), max_size=60), st.data())
    def test_nothing_is_lost_or_given_twice(self, steps: list[Work | str], data: st.DataObject) -> None:
        batch_cost = 30
        devices = data.draw(st.integers(1, 3))
        made = scheduler(batch_cost=batch_cost, devices=devices, pads=data.draw(st.booleans()))
        put: list[Work] = []
        waiting: list[Work] = []
        gone: Counter[Work] = Counter()
        now = 0.0
        for step in [*steps, *["run"] * (2 * len(steps) + 1)]:
            if isinstance(step, Work):
                put.append(step)
                waiting.append(step)
                made.put(step)
            elif step in ("leave", "discard") and waiting:
                left = data.draw(st.sampled_from(waiting))
                left.waiters = 0
                if step == "discard" and made.discard(left):
                    waiting.remove(left)
                    gone[left] += 1
            elif step in ("run", "lose"):
                now += 0.1
                cut = made.next_batch(now, data.draw(st.integers(0, devices - 1)))
                taken = [one for group in cut.batch for one in group]
                assert all(one.waiters and one.deadline > now for one in taken)
                assert not any(one.waiters and one.deadline > now for one in cut.dropped)
                assert len(taken) <= 1 or sum(one.cost for one in taken) <= batch_cost
                assert all(one.key == group[0].key for group in cut.batch for one in group)
                assert len({one.key.lane for one in taken if not one.suspect}) <= 1
                again = step == "lose" and len(taken) > 1
                if again:
                    made.put_suspects(taken)
                for one in [*cut.dropped, *([] if again else taken)]:
                    waiting.remove(one)
                    gone[one] += 1
            assert made.waiting == len(waiting)
        assert gone == Counter(put)

    @given(st.lists(st.tuples(st.integers(1, 25), st.integers(1, 40)), min_size=2, max_size=40), st.integers(10, 60))
    def test_padding_is_within_the_cost_of_a_batch_and_the_oldest_goes_first(
        self, sizes: list[tuple[int, int]], batch_cost: int
    ) -> None:
        works = [work(cost, str(n), length=length) for n, (cost, length) in enumerate(sizes)]
        made = filled(*works, batch_cost=batch_cost, pads=True)
        for batch in batches(made):
            taken = [one for group in batch for one in group]
            assert taken[0] is works[0]
            assert len(taken) == 1 or len(taken) * max(one.length for one in taken) <= batch_cost
            works = [one for one in works if one not in taken]
        assert not works

    @given(
        st.lists(st.integers(1, 25), min_size=1, max_size=40),
        st.lists(st.integers(1, 25), min_size=1, max_size=40),
        st.integers(0, 20),
        st.booleans(),
    )
    def test_two_tenants_that_wait_are_served_alike(
        self, ours: list[int], theirs: list[int], head_start: int, pads: bool
    ) -> None:
        batch_cost = 30
        made = scheduler(batch_cost=batch_cost, pads=pads)
        left = Counter({"ours": len(ours), "theirs": len(theirs)})
        for n, cost in enumerate(ours):
            made.put(work(cost, f"o{n}", "ours"))
        for _ in range(head_start):
            for one in (one for group in made.next_batch(0.0).batch for one in group):
                left[one.key.tenant] -= 1
        for n, cost in enumerate(theirs):
            made.put(work(cost, f"t{n}", "theirs"))
        served: Counter[str] = Counter()
        while all(left.values()):
            for one in (one for group in made.next_batch(0.0).batch for one in group):
                served[one.key.tenant] += one.cost
                left[one.key.tenant] -= 1
            if all(left.values()):
                assert abs(served["ours"] - served["theirs"]) <= batch_cost + 25

    @given(st.lists(st.tuples(st.integers(1, 400), LANES, st.booleans()), max_size=60))
    def test_what_is_admitted_fits_and_is_given_back_to_the_last_token(
        self, asked: list[tuple[int, Lane, bool]]
    ) -> None:
        made = scheduler(queue_cost=1000)
        held: list[tuple[int, Lane]] = []
        for cost, lane, release in asked:
            before = sum(made.room.taken.values())
            room = 1000 if lane is Lane.INTERACTIVE else 900
            try:
                made.admit(cost, lane, 0.0, FAR)
            except ItemError:
                assert before + cost > room
                assert sum(made.room.taken.values()) == before
            else:
                assert before + cost <= room or not before
                held.append((cost, lane))
            if release and held:
                made.release(*held.pop())
            assert made.room.taken == {one: sum(c for c, of in held if of is one) for one in Lane}

    @given(
        st.lists(st.tuples(st.integers(1, 500), st.floats(0.001, 10)), min_size=1, max_size=10),
        st.integers(0, 5000),
        st.integers(0, 5000),
        st.integers(1, 500),
    )
    def test_more_work_ahead_never_means_done_sooner(
        self, learned: list[tuple[int, float]], ahead: int, more: int, cost: int
    ) -> None:
        made = scheduler(batch_cost=100, queue_cost=10**9)
        for batch, seconds in learned:
            made.time.learn(batch, seconds)
        made.room.taken[Lane.BULK] = ahead
        soon = {lane: made.seconds_until_done(lane, cost) for lane in Lane}
        made.admit(more, Lane.BULK, 0.0, FAR)
        later = {lane: made.seconds_until_done(lane, cost) for lane in Lane}
        assert 0 <= soon[Lane.INTERACTIVE] == later[Lane.INTERACTIVE] <= soon[Lane.BULK] <= later[Lane.BULK]
        with pytest.raises(ItemError):
            made.admit(cost, Lane.BULK, 0.0, later[Lane.BULK] - 0.001)
        made.admit(cost, Lane.BULK, 0.0, later[Lane.BULK])


class TestShortBulkBatches:
    """While interactive answers come, a bulk batch is as short as the setting says."""

    def learned(self) -> Scheduler[Work]:
        made = Scheduler[Work](100_000, 1000, bulk_batch_seconds=0.1)
        for cost in (100, 500, 1000):
            made.time.learn(cost, 0.02 + cost * 0.001)
        for n in range(1000):
            made.put(work(10, image=str(n)))
        return made

    def test_bulk_batch_is_cut_by_time_lately_after_an_interactive_answer(self) -> None:
        made = self.learned()
        made.admit(1, Lane.INTERACTIVE, now=100.0, deadline=FAR)
        assert sum(one.cost for group in made.next_batch(105.0).batch for one in group) in (70, 80)
        assert sum(one.cost for group in made.next_batch(111.0).batch for one in group) == 1000

    def test_bulk_batch_is_whole_where_no_interactive_answer_ever_came(self) -> None:
        made = self.learned()
        made.admit(1, Lane.BULK, now=0.0, deadline=FAR)
        assert sum(one.cost for group in made.next_batch(0.0).batch for one in group) == 1000

    def test_batch_is_not_cut_below_what_takes_its_fixed_time_again(self) -> None:
        made = self.learned()
        for cost in (100, 500, 1000) * 200:
            made.time.learn(cost, 0.3 + cost * 0.001)
        made.admit(1, Lane.INTERACTIVE, now=0.0, deadline=FAR)
        assert sum(one.cost for group in made.next_batch(0.0).batch for one in group) == pytest.approx(300, abs=10)

    def test_first_batch_is_whole_for_nothing_is_known_yet(self) -> None:
        made = Scheduler[Work](100_000, 1000, bulk_batch_seconds=0.1)
        made.put(work(500, image="a"))
        made.put(work(400, image="b"))
        made.admit(1, Lane.INTERACTIVE, now=0.0, deadline=FAR)
        assert len(made.next_batch(0.0).batch) == 2
