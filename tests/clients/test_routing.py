"""Which of several servers gets a call; on a clock of the test's own."""

from collections import Counter

import pytest

from medreward.clients.routing import LONGEST_REST_S, Place, Routing


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def routing(clock: Clock) -> Routing[Place]:
    return Routing([Place(name) for name in "abc"], clock)


def home(routing: Routing[Place], key: str) -> str:
    return routing.choose(key).name


KEYS = [f"image {n}" for n in range(600)]


def test_every_key_has_one_place_whoever_asks_and_in_whatever_order_places_are_named(clock: Clock) -> None:
    one = Routing([Place(name) for name in "abc"], clock)
    other = Routing([Place(name) for name in "cab"], clock)
    homes = [home(one, key) for key in KEYS]
    assert homes == [home(other, key) for key in KEYS]
    assert all(150 < count < 250 for count in Counter(homes).values())


def test_a_dead_place_gives_its_keys_to_the_others_and_takes_no_other_key_along(routing: Routing[Place]) -> None:
    before = {key: home(routing, key) for key in KEYS}
    dead = routing.places[0]
    routing.leave_out(dead, "it is dead")
    after = {key: home(routing, key) for key in KEYS}
    assert {before[key] for key in KEYS if after[key] != before[key]} == {dead.name}
    assert {after[key] for key in KEYS if before[key] == dead.name} == {"b", "c"}


def test_a_place_that_was_left_out_gets_one_call_and_after_an_answer_all_of_its_own(
    routing: Routing[Place], clock: Clock
) -> None:
    key = next(key for key in KEYS if home(routing, key) == "a")
    place = routing.places[0]
    routing.leave_out(place, "it is dead")
    clock.now += LONGEST_REST_S
    assert home(routing, key) == "a"
    trip = routing.begin(place)
    assert home(routing, key) != "a"
    routing.answered(place, trip)
    routing.end(place, trip)
    assert home(routing, key) == "a"


def test_a_full_place_passes_new_keys_on_and_each_to_one_other(routing: Routing[Place]) -> None:
    mine = [key for key in KEYS if home(routing, key) == "a"]
    for _ in range(4):
        routing.begin(routing.places[0])
    moved = home(routing, mine[0])
    assert moved != "a"
    routing.places[0].trips.clear()
    assert home(routing, mine[0]) == moved  # which has the image now
    assert home(routing, mine[1]) == "a"


def test_a_place_that_takes_ten_times_as_long_is_left_out_and_the_last_half_never(
    routing: Routing[Place], clock: Clock
) -> None:
    def answer(place: Place, seconds: float) -> None:
        trip = routing.begin(place)
        clock.now += seconds
        routing.answered(place, trip)
        routing.end(place, trip)

    a, b, c = routing.places
    for _ in range(3):
        answer(b, 0.1)
        answer(c, 0.1)
        answer(a, 1.0)
    assert not a.takes(clock.now)
    for _ in range(3):
        answer(c, 1.0)
    assert c.takes(clock.now)
    for _ in range(20):
        answer(c, 0.1)
    clock.now += LONGEST_REST_S
    answer(a, 1.0)  # one call shows that it is still slow
    assert not a.takes(clock.now)
    clock.now += LONGEST_REST_S
    answer(a, 0.1)
    assert a.takes(clock.now)


def test_where_no_place_takes_calls_the_first_that_is_back_is_waited_for(routing: Routing[Place], clock: Clock) -> None:
    for place, seconds in zip(routing.places, (9.0, 7.0, 8.0), strict=True):
        routing.leave_out(place, "it is full", seconds)
    assert routing.seconds_until_one_takes_calls() == 7.0
    assert home(routing, "any") == "b"
    clock.now += 7.0
    assert routing.seconds_until_one_takes_calls() == 0.0


def test_a_single_place_is_chosen_whatever_happens(clock: Clock) -> None:
    routing = Routing([Place("only")], clock)
    routing.leave_out(routing.places[0], "it is dead", 60.0)
    assert home(routing, "any") == "only"


@pytest.mark.parametrize("at_once", [True, False])
def test_a_place_with_more_calls_than_the_others_is_not_slow_for_that(
    routing: Routing[Place], clock: Clock, at_once: bool
) -> None:
    """Neither where a server takes its calls one by one, nor where it takes all of them at once."""
    a, b, c = routing.places
    for place, calls in ((b, 1), (c, 1), (b, 1), (c, 1), (b, 1), (c, 1), (a, 20)):
        trips = [routing.begin(place) for _ in range(calls)]
        clock.now += 1.0 if at_once else 0.0
        for trip in trips:
            clock.now += 0.0 if at_once else 1.0
            routing.answered(place, trip)
            routing.end(place, trip)
    assert a.takes(clock.now)


def test_one_place_alone_is_nothing_to_tell_of(clock: Clock) -> None:
    told: list[str] = []
    routing = Routing([Place("only")], clock, tell=told.append)
    place = routing.choose("key")
    routing.leave_out(place, "it is full")
    trip = routing.begin(place)
    routing.answered(place, trip)
    routing.end(place, trip)
    assert routing.choose("key") is place
    assert told == []
