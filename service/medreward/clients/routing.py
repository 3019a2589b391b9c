"""Decides which of several servers gets a call: rendezvous hashing with bounded load, without those that are dead or
slow. It is pure policy over times, without I/O.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from statistics import median
from typing import Final, Generic, TypeVar

LOAD: Final = 1.25  # times its share of the calls under way that a server may have before the next one gets the call
FEW: Final = 4  # calls under way that are no load
LOAD_OF_HOLDER: Final = 2.0  # the same for a server that has the image already
SLOW: Final = 4.0  # times what the others take, from which on a server counts as slow
SLACK_S: Final = 0.05  # and this much longer, for calls that take no time
SAMPLES: Final = 3  # calls from which a server's time is known
WEIGHT: Final = 0.3  # of the latest call in a server's time
FIRST_REST_S: Final = 0.5
LONGEST_REST_S: Final = 5.0
KEYS: Final = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Trip:
    """A call under way: when it began, and how many there were at its place then."""

    began: float
    among: int


@dataclass(slots=True, eq=False)
class Place:
    """What is known of one server. One that failed last is on trial: it gets one call at a time."""

    name: str
    trips: list[Trip] = field(default_factory=list)
    seconds: float | None = None  # that its calls take, of late
    seconds_each: float = 0.0  # the same, divided by how many calls there were at a time
    samples: int = 0
    failures: int = 0  # in a row
    is_slow: bool = False  # is left out because it is slow
    back_at: float = -math.inf

    def takes(self, now: float) -> bool:
        """Returns whether it may get a call."""
        return now >= self.back_at and not (self.failures and self.trips)


P = TypeVar("P", bound=Place)


class Routing(Generic[P]):
    """Gives each key a place. All clients that know the same names give a key the same place, as long as it has room.

    With one place, that one is chosen whatever happens to it.
    """

    def __init__(
        self,
        places: Sequence[P],
        clock: Callable[[], float],
        load: float = LOAD,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`tell` is told which of several places gets no calls, and why, and when it gets some again."""
        self.places = places
        self.clock = clock
        self._load = load
        self._tell = tell
        self._holders: OrderedDict[str, P] = OrderedDict()  # who has done the work on a key

    def choose(self, key: str) -> P:
        """Returns the place of the next call about this key; where none takes calls, the one that is back first."""
        if len(self.places) == 1:
            return self.places[0]
        now = self.clock()
        taking = [place for place in self.places if place.takes(now)]
        if not taking:
            return min(self.places, key=lambda place: (place.back_at, len(place.trips)))
        share = (sum(len(place.trips) for place in taking) + 1) / len(taking)
        holder = self._holders.get(key)
        if holder in taking and len(holder.trips) < max(FEW, LOAD_OF_HOLDER * share):
            return holder
        order = sorted(self.places, key=lambda place: blake2b(f"{place.name}\n{key}".encode()).digest())
        there = [place for place in order if place.takes(now)]
        chosen = next((place for place in there if len(place.trips) < max(FEW, self._load * share)), there[0])
        if (holder or order[0]).takes(now):  # a place that is out gets its keys back
            self._holders[key] = chosen
            if len(self._holders) > KEYS:
                self._holders.popitem(last=False)
        return chosen

    def begin(self, place: P) -> Trip:
        """Notes that a call begins at the place, and returns what `end` and `answered` want."""
        trip = Trip(self.clock(), len(place.trips) + 1)
        place.trips.append(trip)
        return trip

    def end(self, place: P, trip: Trip) -> None:
        """Notes that the call is over, however it ended."""
        place.trips.remove(trip)

    def answered(self, place: P, trip: Trip) -> None:
        """Notes an answer of the place, which is left out if it takes much longer than the others."""
        taken = self.clock() - trip.began
        weight = 1.0 if place.seconds is None else WEIGHT
        place.seconds = weight * taken + (1 - weight) * (place.seconds or 0.0)
        each = taken / max(trip.among, len(place.trips))  # a burst comes after its first call, and is served beside it
        place.seconds_each = weight * each + (1 - weight) * place.seconds_each
        place.samples += 1
        is_known = place.samples >= (1 if place.failures else SAMPLES)
        if is_known and self._is_far_behind(place, place.seconds, place.seconds_each):
            self.leave_out(place, f"its calls take {place.seconds:.2f} s, much longer than those of the others")
            place.is_slow = True
        elif place.failures:
            place.failures, place.is_slow = 0, False
            if len(self.places) > 1:
                self._tell(f"{place.name} gets calls again")

    def leave_out(self, place: P, why: str, seconds: float = 0.0) -> None:
        """Gives the place no calls for some time: for `seconds` at least, and for longer the more often it failed."""
        rest = min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(place.failures, 10))
        if not place.failures and len(self.places) > 1:
            self._tell(f"{place.name} gets no calls for now: {why}")
        place.failures += 1
        place.is_slow = False
        place.back_at = self.clock() + max(seconds, rest)
        place.seconds, place.samples = None, 0

    def is_overdue(self, place: P, trip: Trip, beyond: float) -> bool:
        """Returns whether the call has waited for so many seconds more than what would be much longer than those of the
        others.
        """
        waited = self.clock() - trip.began - beyond
        return waited > 0 and self._is_far_behind(place, waited, waited / max(trip.among, len(place.trips)))

    def _is_far_behind(self, place: P, seconds: float, seconds_each: float) -> bool:
        """Returns whether calls of so many seconds are much longer than those of the others, and not for their number:
        a server may work through its calls one by one, or all at once.

        At most half of the places that answer are ever slow: if more were, it would be their work that takes so long.
        """
        others = [other for other in self.places if other is not place]
        known = [other for other in others if not other.failures and other.seconds is not None]
        slow, answering = sum(it.is_slow for it in others), sum(it.is_slow or not it.failures for it in others)
        if not known or 2 * (slow + 1) > answering + 1 or seconds <= SLACK_S:
            return False
        typical = median(other.seconds or 0.0 for other in known)
        return seconds > SLOW * typical + SLACK_S and seconds_each > SLOW * median(it.seconds_each for it in known)

    def seconds_until_one_takes_calls(self) -> float:
        """Returns for how long there is no place for a call; 0 if there is one now."""
        now = self.clock()
        if any(place.takes(now) for place in self.places):
            return 0.0
        return max(0.0, min(place.back_at for place in self.places) - now)
