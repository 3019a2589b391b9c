"""A fleet in one process and without waiting: the server's own scheduler, the client's own routing, made-up devices.

What is simulated is time alone. Each replica admits and cuts batches with `engine/queue/scheduler.py`; a batch takes
what the device's measured rate says. Calls go to replicas by `clients/routing.py`, and come again where they are
refused or their replica dies, so that nothing is lost.
"""

import heapq
import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from typing import Final, Literal

from medreward.clients.retries import FIRST_PAUSE_S, LONGEST_PAUSE_S
from medreward.clients.routing import LOAD, Place, Routing, Trip
from medreward.engine.queue.scheduler import GroupKey, Scheduler, Work
from medreward.errors import Code, ItemError
from medreward.scale.autoscaling import SYNC_S, Autoscaler
from medreward.scale.traffic import Ask
from medreward.types import Lane

Rule = Literal["round robin", "hash", "bounded hash"]
RULES: Final[tuple[Rule, ...]] = ("round robin", "hash", "bounded hash")


@dataclass(frozen=True, slots=True)
class Device:
    """How long a batch takes: `fixed_s` and `per_token_s` for each token. `images` is how many its cache holds."""

    fixed_s: float
    per_token_s: float
    batch_cost: int = 16_384
    queue_cost: int = 4_000_000
    images: int = 2_000

    @property
    def tokens_per_second(self) -> float:
        """What it works through when its batches are full."""
        return self.batch_cost / (self.fixed_s + self.batch_cost * self.per_token_s)


@dataclass(frozen=True, slots=True)
class Fault:
    """Between two moments a replica is dead, or takes `slower` times as long."""

    replica: int
    begins: float
    ends: float
    slower: float = math.inf

    @property
    def kills(self) -> bool:
        return math.isinf(self.slower)


@dataclass(slots=True, eq=False)
class Call:
    """An ask at a replica. `left` are the answers that it has no score for yet."""

    ask: Ask
    trip: Trip
    left: int
    tries: int


@dataclass(slots=True, eq=False)
class Triple(Work):
    call: Call | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Replica(Place):
    scheduler: Scheduler[Triple]
    images: OrderedDict[str, None] = field(default_factory=OrderedDict)
    open: dict[Call, None] = field(default_factory=dict)
    runs: int = 0  # which of its lives this is; a batch of an earlier one gives nothing
    is_busy: bool = False
    is_alive: bool = True
    slower: float = 1.0


class RoundRobin(Routing[Replica]):
    """Gives calls to all in turn, whatever they are about."""

    _turn = 0

    def choose(self, key: str) -> Replica:
        now = self.clock()
        taking = [place for place in self.places if place.takes(now)] or list(self.places)
        self._turn += 1
        return taking[self._turn % len(taking)]


@dataclass(slots=True)
class Outcome:
    """What became of all asks."""

    seconds: float = 0.0
    latencies: dict[Lane, list[float]] = field(default_factory=lambda: {lane: [] for lane in Lane})
    triples: int = 0
    encodes: int = 0
    hits: int = 0
    busy_s: float = 0.0  # of all devices
    retries: Counter[str] = field(default_factory=Counter)
    finished: list[tuple[float, int]] = field(default_factory=list)  # when, and how many triples
    pods: list[tuple[float, int]] = field(default_factory=list)  # when their number changed, and to what
    unanswered: int = 0  # asks that were still open at the end

    def p99(self, lane: Lane, share: float = 0.99) -> float | None:
        """Returns the time within which that share of a lane's groups were answered; None where there were none."""
        times = sorted(self.latencies[lane])
        return times[min(len(times) - 1, math.ceil(share * len(times)) - 1)] if times else None

    @property
    def hit_rate(self) -> float:
        """The share of groups whose image was in the cache of the device that ran them."""
        return self.hits / (self.hits + self.encodes) if self.hits else 0.0

    @property
    def triples_per_second(self) -> float:
        return self.triples / self.seconds if self.seconds else 0.0

    @property
    def turns(self) -> int:
        """How often the number of pods began to fall after it rose, or to rise after it fell."""
        steps = [after - before for (_, before), (_, after) in pairwise(self.pods)]
        ways = [step > 0 for step in steps if step]
        return sum(one != other for one, other in pairwise(ways))


class Simulation:
    def __init__(
        self,
        device: Device,
        replicas: int,
        rule: Rule = "bounded hash",
        faults: Sequence[Fault] = (),
        autoscaler: Autoscaler | None = None,
        start_seconds: float = 60.0,
        blind: tuple[float, float] = (math.inf, math.inf),
        seed: int = 0,
    ) -> None:
        """With an `autoscaler` the number of replicas changes; a new one needs `start_seconds`. Between the two moments
        of `blind` nobody can tell it the queued cost.
        """
        self._device = device
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._chance = random.Random(seed)  # noqa: S311  # it draws moments, and guards nothing
        self._names = count()
        self.replicas = [self._new() for _ in range(replicas)]
        self._routing = self._routing_by(rule)
        self._autoscaler = autoscaler
        self._start_seconds = start_seconds
        self._blind = blind
        self._starting = 0
        self._open = 0
        self.outcome = Outcome(pods=[(0.0, replicas)])
        for fault in faults:
            self._at(fault.begins, partial(self._spoil, self.replicas[fault.replica], fault))

    def run(self, asks: Iterable[Ask], patience: float = 3600.0) -> Outcome:
        """Runs until every ask is answered; those that are not after `patience` seconds more count as unanswered."""
        if self._autoscaler:
            self._at(0.0, self._look)
        coming = iter(asks)
        self._next(coming)
        last = 0.0
        while self._events and (self._open or not self._is_over) and self._now < last + patience:
            self._now, _, happens = heapq.heappop(self._events)
            if not self._is_over:
                last = self._now
            happens()
        self.outcome.seconds = self.outcome.finished[-1][0] if self.outcome.finished else 0.0
        self.outcome.unanswered = self._open
        return self.outcome

    # asks

    _is_over = False  # no more asks come

    def _next(self, coming: Iterator[Ask]) -> None:
        ask = next(coming, None)
        if ask is None:
            self._is_over = True
            return
        self._open += 1

        def arrive() -> None:
            self._send(ask, 0)
            self._next(coming)

        self._at(ask.at, arrive)

    def _send(self, ask: Ask, tries: int) -> None:
        """Sends an ask to the replica that the routing chooses."""
        replica = self._routing.choose(ask.image)
        if not replica.is_alive:
            self._routing.leave_out(replica, "it is dead")
            self._again(ask, tries, "dead")
            return
        shared = ask.image_tokens + ask.question_tokens
        try:
            replica.scheduler.admit(shared + ask.responses * ask.answer_tokens, ask.lane, self._now, math.inf)
        except ItemError as error:
            self._routing.leave_out(replica, error.code, error.retry_after or 0.0)
            self._again(ask, tries, Code.OVERLOADED)
            return
        call = Call(ask, self._routing.begin(replica), ask.responses, tries)
        replica.open[call] = None
        key, prompt, answer = (
            GroupKey(ask.lane, "", ask.image, b""),
            range(ask.question_tokens),
            range(ask.answer_tokens),
        )
        for place in range(ask.responses):
            cost = ask.answer_tokens + (0 if place else shared)
            replica.scheduler.put(Triple(key, prompt, answer, cost, self._now, math.inf, call=call))
        self._begin_batch(replica)

    def _again(self, ask: Ask, tries: int, why: str) -> None:
        """Sends the ask once more, after the client's own pause."""
        self.outcome.retries[why] += 1
        pause = self._chance.random() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries, 10))
        wait = self._routing.seconds_until_one_takes_calls() + pause
        self._at(self._now + wait, partial(self._send, ask, tries + 1))

    # batches

    def _begin_batch(self, replica: Replica) -> None:
        if replica.is_busy or not replica.is_alive:
            return
        batch = replica.scheduler.next_batch(self._now).batch
        if batch:
            replica.is_busy = True
            tokens = sum(self._tokens(replica, group) for group in batch)
            seconds = (self._device.fixed_s + tokens * self._device.per_token_s) * replica.slower
            self.outcome.busy_s += seconds
            self._at(self._now + seconds, partial(self._end_batch, replica, batch, seconds, replica.runs))

    def _tokens(self, replica: Replica, group: Sequence[Triple]) -> int:
        """Returns what the device must work through, and keeps the image in its cache."""
        call = group[0].call
        assert call
        is_hit = call.ask.image in replica.images
        replica.images[call.ask.image] = None
        replica.images.move_to_end(call.ask.image)
        if len(replica.images) > self._device.images:
            replica.images.popitem(last=False)
        self.outcome.hits += is_hit
        self.outcome.encodes += not is_hit
        image = 0 if is_hit else call.ask.image_tokens
        return image + call.ask.question_tokens + sum(triple.length - len(triple.prompt) for triple in group)

    def _end_batch(self, replica: Replica, batch: list[list[Triple]], seconds: float, run: int) -> None:
        if run != replica.runs:
            return
        replica.is_busy = False
        triples = [triple for group in batch for triple in group]
        replica.scheduler.time.learn(sum(triple.cost for triple in triples), seconds)
        for triple in triples:
            replica.scheduler.release(triple.cost, triple.key.lane)
            call = triple.call
            assert call
            call.left -= 1
            if not call.left:
                self._answer(replica, call)
        self._begin_batch(replica)

    def _answer(self, replica: Replica, call: Call) -> None:
        del replica.open[call]
        self._routing.end(replica, call.trip)
        self._routing.answered(replica, call.trip)
        self._open -= 1
        self.outcome.triples += call.ask.responses
        self.outcome.latencies[call.ask.lane].append(self._now - call.ask.at)
        self.outcome.finished.append((self._now, call.ask.responses))

    # replicas

    def _new(self) -> Replica:
        scheduler: Scheduler[Triple] = Scheduler(self._device.queue_cost, self._device.batch_cost)
        return Replica(name=f"http://replica-{next(self._names)}:8000", scheduler=scheduler)

    def _routing_by(self, rule: Rule) -> Routing[Replica]:
        if rule == "round robin":
            return RoundRobin(self.replicas, lambda: self._now)
        return Routing(self.replicas, lambda: self._now, LOAD if rule == "bounded hash" else math.inf)

    def _spoil(self, replica: Replica, fault: Fault) -> None:
        if fault.kills:
            self._lose(replica)
        else:
            replica.slower = fault.slower
        self._at(fault.ends, partial(self._mend, replica))

    def _lose(self, replica: Replica) -> None:
        """Ends a replica with all that it holds; what it was asked is asked again."""
        replica.is_alive, replica.is_busy, replica.runs = False, False, replica.runs + 1
        replica.scheduler = Scheduler(self._device.queue_cost, self._device.batch_cost)
        replica.images.clear()
        lost, replica.open = replica.open, {}
        for call in lost:
            self._routing.end(replica, call.trip)
            self._again(call.ask, call.tries, "dead")
        self._routing.leave_out(replica, "it is dead")

    def _mend(self, replica: Replica) -> None:
        replica.is_alive, replica.slower = True, 1.0

    # scaling

    def _look(self) -> None:
        assert self._autoscaler
        pods = len(self._routing.places) + self._starting
        queued = sum(replica.scheduler.room.all_taken for replica in self._routing.places)
        is_blind = self._blind[0] <= self._now < self._blind[1]
        wanted = self._autoscaler.look(self._now, pods, None if is_blind else queued)
        for _ in range(wanted - pods):
            self._starting += 1
            self._at(self._now + self._start_seconds, self._join)
        places = list(self._routing.places)
        if wanted < pods and not self._starting:
            self._routing.places = places[:wanted]  # the others finish what they have
        if wanted != pods:
            self.outcome.pods.append((self._now, wanted))
        self._at(self._now + SYNC_S, self._look)

    def _join(self) -> None:
        self._starting -= 1
        self._routing.places = [*self._routing.places, self._new()]

    def _at(self, moment: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._order), happens))
