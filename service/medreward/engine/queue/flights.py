"""Keeps track of triples on their way to a score. Identical triples share a flight, and a score that is kept needs
none.
"""

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from medreward.backends.base import HeadOutputs
from medreward.caches import ByteCache
from medreward.engine.images.slots import Picture
from medreward.engine.queue.scheduler import GroupKey, Scheduler, Work
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics
from medreward.types import Trace

QUARANTINE: Final = 10_000  # triples remembered


@dataclass(frozen=True, slots=True)
class Landed:
    """How a flight ended: the model's outputs or an error, and how long it waited and ran."""

    outcome: HeadOutputs | ItemError
    queue_s: float
    inference_s: float


@dataclass(slots=True, eq=False)
class Flight(Work):
    """A triple on its way to the device. `landed` is what those who wait for it await."""

    id: str = ""
    pictures: Sequence[Picture] = ()
    traces: list[Trace] = field(default_factory=list)  # of the requests that wait for it
    landed: asyncio.Future[Landed] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Flights:
    """The flights of one model, the scores that are kept, and the triples in quarantine."""

    def __init__(self, scheduler: Scheduler[Flight], cache_bytes: int, metrics: Metrics) -> None:
        self._scheduler = scheduler
        self._flying: dict[str, Flight] = {}
        self._quarantined: OrderedDict[str, None] = OrderedDict()
        self._scores: ByteCache[NDArray[np.float32]] = ByteCache(cache_bytes)
        self._requests = metrics.cache_requests.labels("scores")
        self._hits = metrics.cache_hits.labels("scores")

    @property
    def cached_bytes(self) -> int:
        return self._scores.bytes

    def __len__(self) -> int:
        return len(self._flying)

    def known(self, id_: str) -> HeadOutputs | ItemError | None:
        """Returns the outputs that are kept of this triple, or why it must not run again; None when it has to run."""
        if id_ in self._quarantined:
            return _quarantined()
        self._requests.inc()
        heads = self._scores.get(id_)
        if heads is not None:
            self._hits.inc()
        return heads

    def joined(self, id_: str, deadline: float) -> Flight | None:
        """Returns the flight of an identical triple, which has one more waiter from now on; None when there is none."""
        flight = self._flying.get(id_)
        if flight:
            flight.waiters += 1
            flight.deadline = max(flight.deadline, deadline)
        return flight

    def launch(self, flight: Flight) -> None:
        """Queues the flight, whose cost has been admitted. It holds its pictures until it ends."""
        self._flying[flight.id] = flight
        for picture in flight.pictures:
            picture.holders += 1
        self._scheduler.put(flight)

    def leave(self, flight: Flight) -> None:
        """Takes one waiter off. A flight that nobody waits for any more leaves the queue, if it is still in it."""
        flight.waiters -= 1
        if not flight.waiters and not flight.landed.done() and self._scheduler.discard(flight):
            flight.landed.cancel()
            self._end(flight)

    def land(
        self, flight: Flight, outcome: HeadOutputs | ItemError, queue_s: float = 0.0, inference_s: float = 0.0
    ) -> None:
        """Ends the flight and tells all who wait for it. Finite outputs are kept."""
        self._end(flight)
        if not isinstance(outcome, ItemError) and np.isfinite(outcome).all():
            self._scores.put(flight.id, outcome)
        flight.landed.set_result(Landed(outcome, queue_s, inference_s))

    def quarantine(self, flight: Flight) -> None:
        """Ends a flight that took a worker down twice, the second time alone. The same triple never runs again."""
        self._quarantined[flight.id] = None
        if len(self._quarantined) > QUARANTINE:
            self._quarantined.popitem(last=False)
        self.land(flight, _quarantined())

    def _end(self, flight: Flight) -> None:
        if self._flying.get(flight.id) is flight:
            del self._flying[flight.id]
        for picture in flight.pictures:
            picture.holders -= 1
        self._scheduler.release(flight.cost, flight.key.lane)


def _quarantined() -> ItemError:
    return ItemError(Code.INTERNAL, "this item took the model's worker down and is not tried again", "response")


def flight_id(key: GroupKey, answer: Sequence[int]) -> str:
    """Returns an id that the same triple of the same tenant, lane and expert has, and no other."""
    about = f"{key.lane}/{key.image}/{key.tenant}".encode() + key.prompt + key.expert.encode()
    return blake2b(array("Q", answer).tobytes(), key=blake2b(about, digest_size=32).digest()).hexdigest()


def prompt_digest(prompt: Sequence[int]) -> bytes:
    return blake2b(array("Q", prompt).tobytes(), digest_size=32).digest()
