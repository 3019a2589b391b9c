"""Decides what is admitted and what runs next. It is pure policy over costs and times, without I/O and clock."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Generic, TypeVar
from zlib import crc32

from medreward.engine.queue.batch_time import BatchTime
from medreward.errors import Code, ItemError
from medreward.types import Lane

INTERACTIVE_IN_A_ROW: Final = 4  # interactive batches in a row, after which bulk work that waits gets one
AWAY_EVERY: Final = 4  # every fourth pick of a device is the oldest group, whichever device is its home
LATELY: Final = 10.0  # seconds after an interactive answer in which the next one is expected
BULK_SHARE: Final = 0.9  # the part of the queue that bulk work may fill; the rest is for the interactive lane
FULL: Final = 0.98  # a lane counts as full when it has taken this part of what it may take
LONGEST_RETRY_AFTER: Final = 30
OVERLOADED: Final = "the server has more work than it can take; try again later"
WINDOW: Final = 64  # how many waiting groups are searched for one of a fitting length


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What makes answers share images and a prompt, and nothing else: lanes and tenants do not mix."""

    lane: Lane
    tenant: str
    image: str  # digests of its images in their order, with commas between; empty without one
    prompt: bytes  # digest
    expert: str = ""  # of the model, who scores it


@dataclass(slots=True, eq=False)
class Work:
    """One triple that waits for its score."""

    key: GroupKey
    prompt: Sequence[int]
    answer: Sequence[int]
    cost: int
    since: float
    deadline: float
    waiters: int = 1
    suspect: bool = False  # was in a batch that took its worker down

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.answer)


W = TypeVar("W", bound=Work)


@dataclass(slots=True)
class Cut(Generic[W]):
    """What the device gets next, by group, and what left the queue because nobody can use its score any more."""

    batch: list[list[W]] = field(default_factory=list)
    dropped: list[W] = field(default_factory=list)


class Room:
    """How much of something may be under way; the last tenth is kept free for the interactive lane."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.taken = dict.fromkeys(Lane, 0)

    @property
    def all_taken(self) -> int:
        return sum(self.taken.values())

    def fits(self, amount: int, lane: Lane) -> bool:
        """Returns whether the amount fits. An empty room takes any, because what is larger than it would never fit."""
        return not self.all_taken or self.all_taken + amount <= self._for(lane)

    def is_full(self, lane: Lane) -> bool:
        """Returns whether the lane is so full that it is not worth parsing a request to find out if it fits."""
        return self.all_taken >= FULL * self._for(lane)

    def _for(self, lane: Lane) -> float:
        return self._size * (BULK_SHARE if lane is Lane.BULK else 1)


class Scheduler(Generic[W]):
    """Admits work by cost, and cuts batches: interactive before bulk, fair among tenants, whole groups, like
    lengths.
    """

    def __init__(
        self,
        queue_cost: int,
        batch_cost: int,
        devices: int = 1,
        pads: bool = False,
        bulk_batch_seconds: float = math.inf,
    ) -> None:
        """While the interactive lane is in use a bulk batch gets no more than takes `bulk_batch_seconds`."""
        self._batch_cost = batch_cost
        self._bulk_batch_seconds = bulk_batch_seconds
        self._interactive_at = -math.inf  # when work last came in the interactive lane
        self._devices = devices
        self._pads = pads
        self._lanes: dict[Lane, _Waiting[W]] = {lane: _Waiting() for lane in Lane}
        self._suspects: list[list[W]] = []
        self._suspects_ran = False
        self._interactive_run = 0
        self.room = Room(queue_cost)  # for cost reserved, waiting or running
        self.time = BatchTime()

    # at the door

    def admit(self, cost: int, lane: Lane, now: float, deadline: float) -> None:
        """Reserves room for work of this cost, which `release` gives back.

        Fails with an ItemError when there is no room, or when the deadline cannot be met.
        """
        if not self.room.fits(cost, lane):
            raise ItemError(Code.OVERLOADED, OVERLOADED, retry_after=self.seconds_until_room())
        if now + self.seconds_until_done(lane, cost) > deadline:
            raise ItemError(Code.DEADLINE, "the deadline cannot be met: too much work is waiting")
        self.room.taken[lane] += cost
        if lane is Lane.INTERACTIVE:
            self._interactive_at = now

    def release(self, cost: int, lane: Lane) -> None:
        self.room.taken[lane] -= cost

    def seconds_until_done(self, lane: Lane, cost: int) -> float:
        """Returns how long work that came now would take until it is done, by the latest batches; 0 before the
        first.
        """
        taken = self.room.taken
        ahead = taken[Lane.INTERACTIVE] + (taken[Lane.BULK] if lane is Lane.BULK else 0)
        return max(self._seconds(cost), self._seconds(ahead + cost) / self._devices)

    def _seconds(self, cost: int) -> float:
        """Returns how long work of this cost takes on one device."""
        return -(-cost // self._batch_cost) * self.time.fixed + cost * self.time.per_cost

    def seconds_until_room(self) -> float:
        """Returns whole seconds for Retry-After: how long the work that is admitted should take."""
        return float(min(LONGEST_RETRY_AFTER, max(1, math.ceil(self.seconds_until_done(Lane.BULK, 0)))))

    # in the queue

    def put(self, work: W) -> None:
        self._lanes[work.key.lane].put(work)

    def discard(self, work: W) -> bool:
        """Takes work that nobody waits for out of the queue. Returns False if it is not there: it runs or is a
        suspect.
        """
        return self._lanes[work.key.lane].discard(work)

    def put_suspects(self, works: Sequence[W]) -> None:
        """Queues work that took a worker down, in halves that run apart, until what is to blame stands alone."""
        for work in works:
            work.suspect = True
        middle = len(works) // 2
        self._suspects += [list(half) for half in (works[:middle], works[middle:]) if half]

    def next_batch(self, now: float, device: int = 0) -> Cut[W]:
        """Returns a batch of what is still wanted, within the cost of a batch, but of one triple at least if there is
        any.
        """
        cut: Cut[W] = Cut()
        # Suspects take turns with other work, for each of them may hang its worker.
        if not self._suspects_ran or not any(map(len, self._lanes.values())):
            while self._suspects and not cut.batch:
                for work in self._suspects.pop(0):
                    _sort(cut, work, now)
        self._suspects_ran = bool(cut.batch)
        if not cut.batch:
            lane = self._next_lane()
            self._fill(cut, self._lanes[lane], now, device, self._most(lane, now))
            if lane is Lane.INTERACTIVE:
                # Bulk work may be added that takes as long as a batch's fixed time.
                urgent = sum(work.cost for group in cut.batch for work in group)
                more = self.time.fixed / self.time.per_cost if self.time.per_cost else self._batch_cost
                most = min(self._batch_cost, urgent + more) if self.time.fixed else 0.0
                self._fill(cut, self._lanes[Lane.BULK], now, device, most)
        return cut

    def _most(self, lane: Lane, now: float) -> float:
        """Returns the cost that a batch of this lane may have. An interactive answer waits for the batch that runs when
        it comes, so that a bulk batch is short while such answers come."""
        if lane is Lane.INTERACTIVE or now - self._interactive_at > LATELY:
            return self._batch_cost
        return min(self._batch_cost, self.time.cost_within(self._bulk_batch_seconds))

    @property
    def waiting(self) -> int:
        return sum(len(lane) for lane in self._lanes.values()) + sum(map(len, self._suspects))

    def _next_lane(self) -> Lane:
        interactive, bulk = self._lanes[Lane.INTERACTIVE], self._lanes[Lane.BULK]
        if not len(interactive) or (len(bulk) and self._interactive_run >= INTERACTIVE_IN_A_ROW):
            self._interactive_run = 0
            return Lane.BULK
        self._interactive_run += 1
        return Lane.INTERACTIVE

    def _fill(self, cut: Cut[W], waiting: "_Waiting[W]", now: float, device: int, budget: float) -> None:
        taken = [work for group in cut.batch for work in group]
        rows, cost = len(taken), sum(work.cost for work in taken)
        longest = max((work.length for work in taken), default=0)
        while (key := waiting.next_group(device, self._devices, longest if self._pads else 0)) is not None:
            passed = charged = 0
            for work in waiting.works(key):
                if _is_wanted(work, now):
                    longest_with = max(longest, work.length)
                    padded = (rows + 1) * longest_with if self._pads else 0
                    if rows and max(cost + work.cost, padded) > budget:
                        break
                    rows, cost, longest = rows + 1, cost + work.cost, longest_with
                    charged += work.cost
                _sort(cut, work, now)
                passed += 1
            waiting.take(key, passed, charged)
            if waiting.works(key):  # the batch is full
                return


class _Waiting(Generic[W]):
    """The work that waits in one lane: each tenant's groups in the order they came, and what it has been served."""

    def __init__(self) -> None:
        self._tenants: dict[str, dict[GroupKey, list[W]]] = {}
        self._served: dict[str, float] = {}  # virtual time of start-time fair queueing
        self._count = 0
        self._picks = 0

    def __len__(self) -> int:
        return self._count

    def put(self, work: W) -> None:
        tenant = work.key.tenant
        if tenant not in self._tenants:
            # A tenant that comes (back) starts level with the least served: its absence is no credit.
            level = min((self._served[other] for other in self._tenants), default=0.0)
            self._served[tenant] = max(self._served.get(tenant, 0.0), level)
            self._tenants[tenant] = {}
        self._tenants[tenant].setdefault(work.key, []).append(work)
        self._count += 1

    def works(self, key: GroupKey) -> list[W]:
        return self._tenants.get(key.tenant, {}).get(key, [])

    def take(self, key: GroupKey, count: int, cost: int) -> None:
        """Takes the first `count` of a group out of the queue and charges their tenant for `cost`."""
        del self.works(key)[:count]
        self._count -= count
        self._served[key.tenant] += cost
        self._forget_if_empty(key)

    def discard(self, work: W) -> bool:
        works = self.works(work.key)
        if work not in works:
            return False
        works.remove(work)
        self._count -= 1
        self._forget_if_empty(work.key)
        return True

    def _forget_if_empty(self, key: GroupKey) -> None:
        if not self.works(key):
            del self._tenants[key.tenant][key]
        if not self._tenants[key.tenant]:
            del self._tenants[key.tenant]
        if not self._tenants:
            self._served.clear()

    def next_group(self, device: int, devices: int, longest: int) -> GroupKey | None:
        """Returns the oldest group of the least served tenant that is at home on this device, or else its oldest.

        With `longest`, the length to which the batch is padded so far, the group whose length fits it best.
        """
        if not self._tenants:
            return None
        tenant = min(self._tenants, key=lambda name: self._served[name])
        groups = self._tenants[tenant]
        first = list(islice(groups, WINDOW))
        self._picks += 1
        anywhere = devices == 1 or self._picks % AWAY_EVERY == 0  # or a device that is down would starve its groups
        # An image and prompt are always at home on the same device, whose caches may then hold them.
        homes = {key: crc32(key.image.encode() + key.prompt) % devices for key in ([] if anywhere else first)}
        at_home = [key for key, home in homes.items() if home == device] or first
        if not longest:
            return at_home[0]
        return min(at_home, key=lambda key: abs(max(work.length for work in groups[key]) - longest))


def _is_wanted(work: Work, now: float) -> bool:
    return work.waiters > 0 and work.deadline > now


def _sort(cut: Cut[W], work: W, now: float) -> None:
    if not _is_wanted(work, now):
        cut.dropped.append(work)
    elif cut.batch and cut.batch[-1][0].key == work.key:
        cut.batch[-1].append(work)
    else:
        cut.batch.append([work])
