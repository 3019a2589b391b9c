"""The engine between items and devices through simulated hours: virtual time, real policy, workers that fail."""

import asyncio
import math
import selectors
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from zlib import crc32

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from medreward.backends.base import CostModel, Counts, HeadOutputs
from medreward.encoding.image import ImageLimits
from medreward.encoding.sizes import ImageSpec
from medreward.engine.images.fetch import Allowance
from medreward.engine.images.pictures import Pictures
from medreward.engine.images.resolve import Images
from medreward.engine.images.slots import FEWEST_SLOTS, Slots
from medreward.engine.images.store import ImageStore
from medreward.engine.items import Items, RequestContext
from medreward.engine.model import open_model
from medreward.engine.queue.dispatcher import Dispatcher
from medreward.engine.queue.flights import Flight, Flights, prompt_digest
from medreward.engine.queue.scheduler import INTERACTIVE_IN_A_ROW, Cut, GroupKey, Room, Scheduler
from medreward.engine.scoring import Scoring
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import (
    Failed,
    InlineImage,
    Item,
    Lane,
    Options,
    Result,
    Runtime,
    Scored,
    ScoreRequest,
    SleepLevel,
    Timings,
)
from medreward.workers.decode.pool import DecoderLost, Decoders
from medreward.workers.device.runner import Done
from medreward.workers.device.worker import WorkerLost
from medreward.workers.frames import Decode, GroupFrame
from medreward.workers.process import ChildProcess
from pictures import png

pytestmark = pytest.mark.slow

HOUR = 3600.0
SPEC = ImageSpec(2, 2)
BATCH_COST = 150
QUEUE_COST = 2500
BASE_SECONDS, SECONDS_PER_COST = 0.1, 0.002
DECODE_SECONDS = 0.02
DECODERS = 3
RESPAWN_SECONDS = 3.0
SETTINGS = Settings(model="fake")
MODEL = open_model(SETTINGS)
SCORING = Scoring(MODEL.manifest.calibration, MODEL.default_weights)
POISON = "poison"
POISON_ID = MODEL.text.answer(MODEL.text.prompt("q"), POISON, Options()).ids[0]
PROBE = GroupFrame([], [1], [[1]])

Triple = tuple[GroupKey, tuple[int, ...]]


class Skipping(selectors.SelectSelector):
    """Where a loop would wait, the time it waits for is now."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for somebody else"
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


@pytest.fixture
def virtual() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        yield runner


@dataclass(frozen=True)
class Ask:
    tenant: str
    lane: Lane
    image: int | None
    question: str
    responses: tuple[str, ...]
    seconds: float = 60.0

    @property
    def digest(self) -> str:
        return FILES[self.image].digest if self.image is not None else ""

    def triples(self) -> list[Triple]:
        prompt = MODEL.text.prompt(self.question)
        key = GroupKey(self.lane, self.tenant, self.digest, prompt_digest(prompt.ids))
        return [(key, tuple(MODEL.text.answer(prompt, text, Options()).ids)) for text in self.responses]

    def logits(self) -> list[float]:
        pixels = _pixels(FILES[self.image].data) if self.image is not None else None
        prompt = MODEL.text.prompt(self.question)
        return [_number(pixels, prompt.ids, MODEL.text.answer(prompt, r, Options()).ids) for r in self.responses]


def _pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((2, 2, 3), np.frombuffer(crc32(data).to_bytes(4, "big")[1:], np.uint8), np.uint8)


def _number(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None, *texts: Sequence[int]) -> float:
    seen = pixels.tobytes() if pixels is not None else b""
    return float(np.float32(crc32(repr([seen, *map(list, texts)]).encode()) / 2**32))


LIMITS = ImageLimits(bytes=10**6, pixels=10**6, side=1000, min_side=1, aspect=100)
IMAGES = Images(ImageStore(0, 0), LIMITS, Metrics(CollectorRegistry()))
FILES = [IMAGES._checked(png(seed, 4, 4), "") for seed in range(100)]


@dataclass(frozen=True)
class Trouble:
    """How often, of a batch or an image."""

    crash: float = 0.0  # the worker goes for reasons of its own
    fault: float = 0.0  # the worker raises something nobody expects
    refusal: float = 0.0  # a group fails
    decoder: float = 0.0


class StubWorker:
    """A device that takes its time, goes down over poison, and numbers what it sees at the end of its batch."""

    runtime = Runtime("stub", "cpu", "fp32")
    cost = CostModel(image=4, row=1)

    def __init__(self, world: "World", device: int) -> None:
        self._world = world
        self._device = device
        self._ready = asyncio.Event()
        self._ready.set()
        self._busy = False

    async def start(self) -> None:
        raise NotImplementedError

    async def sleep(self, level: SleepLevel) -> None:
        raise NotImplementedError

    async def wake(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def state(self) -> dict[str, object]:
        raise NotImplementedError

    async def ready(self) -> None:
        await self._ready.wait()

    def is_ready(self) -> bool:
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        return None

    async def score(self, groups: Sequence[GroupFrame]) -> Done:
        self._world.expect(self.is_ready(), "a worker got a batch while it was being replaced")
        self._world.expect(not self._busy, "a worker got two batches at once")
        self._busy = True
        try:
            return await self._score(groups)
        finally:
            self._busy = False
            self._world.scheduler.running.pop(self._device, None)

    async def _score(self, groups: Sequence[GroupFrame]) -> Done:
        tokens = sum(len(answer) for group in groups for answer in group.answers)
        seconds = BASE_SECONDS + SECONDS_PER_COST * tokens
        trouble, roll = self._world.trouble, self._world.random.random
        poisoned = any(POISON_ID in answer for group in groups for answer in group.answers)
        await asyncio.sleep(seconds / 2)
        if poisoned or roll() < trouble.crash:
            self._world.lost(groups, poisoned)
            self._ready.clear()
            asyncio.get_running_loop().call_later(RESPAWN_SECONDS, self._ready.set)
            raise WorkerLost("crash")
        await asyncio.sleep(seconds / 2)
        if roll() < trouble.fault:
            self._world.counts["fault"] += 1
            raise ValueError("a fault")
        return Done([self._outcomes(group, roll() < trouble.refusal) for group in groups], 0.0, seconds, Counts())

    def _outcomes(self, group: GroupFrame, refused: bool) -> list[HeadOutputs | ItemError]:
        if refused:
            return [ItemError(Code.OUT_OF_MEMORY, "no memory")] * len(group.answers)
        pixels = self._world.slots.memory.pixels(group.images[0].place) if group.images else None
        return [np.full((1, 6), _number(pixels, group.prompt, answer), np.float32) for answer in group.answers]


class StubChild(ChildProcess):
    def __init__(self) -> None:
        """No process."""

    @property
    def is_gone(self) -> bool:
        return False


class StubDecoders(Decoders):
    def __init__(self, world: "World") -> None:
        super().__init__(world.slots.memory, DECODERS, 1, 1.0)
        self._world = world
        for _ in range(DECODERS):
            self._give(StubChild())

    async def decode(self, child: ChildProcess | None, image: Decode) -> None:
        assert child
        try:
            await asyncio.sleep(DECODE_SECONDS)
        finally:
            self._give(child)
        if self._world.random.random() < self._world.trouble.decoder:
            raise DecoderLost
        self._world.slots.memory.pixels(image.place)[:] = _pixels(image.data)


class WatchedScheduler(Scheduler[Flight]):
    """Looks at what each device gets, with the eyes of those who wait."""

    def watch(self, world: "World") -> None:
        self._world = world
        self.running: dict[int, set[Triple]] = {}
        self._tries: Counter[Flight] = Counter()
        self._most_tries: dict[Flight, int] = {}

    def next_batch(self, now: float, device: int = 0) -> Cut[Flight]:
        expect = self._world.expect
        cut = super().next_batch(now, device)
        flights = [flight for group in cut.batch for flight in group]
        triples = [_triple(flight) for flight in flights]
        elsewhere = {triple for running in self.running.values() for triple in running}
        expect(len(set(triples)) == len(triples), "a triple twice in a batch")
        expect(elsewhere.isdisjoint(triples), "a triple on two devices")
        expect(all(self._world.waiting[triple] > 0 for triple in triples), "work that nobody waits for")
        expect(all(flight.deadline > now for flight in flights), "work past its deadline")
        expect(len(flights) <= 1 or sum(f.cost for f in flights) <= BATCH_COST, "a batch above its cost")
        expect(all(len({f.key for f in group}) == 1 for group in cut.batch), "a group of two images or prompts")
        expect(self._world.quarantined.isdisjoint(triples), "a quarantined triple ran")
        for flight in flights:
            self._most_tries.setdefault(flight, max(2, math.ceil(math.log2(len(flights))) + 1))
            self._tries[flight] += 1
            expect(self._tries[flight] <= self._most_tries[flight], "a triple that took the worker down too often")
        self.running[device] = set(triples)
        self._world.counts["run"] += len(flights)
        self._world.counts["dropped"] += len(cut.dropped)
        return cut


def _triple(flight: Flight) -> Triple:
    return flight.key, tuple(flight.answer)


class World:
    """Items, scheduler, flights and dispatchers over workers and decoders that are stubs."""

    def __init__(
        self,
        seed: int = 0,
        trouble: Trouble | None = None,
        devices: int = 1,
        pads: bool = False,
        queue_cost: int = QUEUE_COST,
    ) -> None:
        self.random = Random(seed)
        self.trouble = trouble or Trouble()
        self.broken: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.waiting: Counter[Triple] = Counter()
        self.quarantined: set[Triple] = set()
        self._lost_alone: Counter[tuple[str, tuple[int, ...], tuple[int, ...]]] = Counter()
        metrics = Metrics(CollectorRegistry())
        self.scheduler = WatchedScheduler(queue_cost, BATCH_COST, devices, pads)
        self.scheduler.watch(self)
        self.flights = Flights(self.scheduler, 5000, metrics)
        self.slots = Slots(SPEC.pixels, 0)
        work, clock = asyncio.Event(), asyncio.get_running_loop().time
        self.dispatchers = [
            Dispatcher(device, StubWorker(self, device), self.scheduler, self.flights, work, metrics, clock, PROBE, 5.0)
            for device in range(devices)
        ]
        self.pictures = Pictures(self.slots, SPEC, StubDecoders(self), Room(10**9), metrics, clock)
        self._items = Items(
            MODEL, StubWorker.cost, IMAGES, self.pictures, self.scheduler, self.flights, work, clock, SETTINGS
        )

    def expect(self, true: bool, otherwise: str) -> None:
        """Asserted at the end, for an exception here would be one more fault of the worker."""
        if not true:
            self.broken.add(otherwise)

    def lost(self, groups: Sequence[GroupFrame], poisoned: bool) -> None:
        self.counts["lost over poison" if poisoned else "lost"] += 1
        if len(groups) == len(groups[0].answers) == 1:
            self._lost_alone[_seen(groups[0])] += 1

    async def ask(self, ask: Ask) -> list[Result]:
        images = (InlineImage(FILES[ask.image].data),) if ask.image is not None else ()
        item = Item(ask.question, ask.responses, images)
        request = ScoreRequest("", (item,), lane=ask.lane, tenant=ask.tenant)
        deadline = asyncio.get_running_loop().time() + ask.seconds
        triples = ask.triples()
        self.waiting.update(triples)
        try:
            async with asyncio.timeout_at(deadline):
                return await self._items.score(
                    0, item, RequestContext(request, deadline, SCORING, Timings(), Allowance(0))
                )
        finally:
            self.waiting.subtract(triples)

    async def client(self, at: float, ask: Ask, patience: float) -> None:
        """Asks, may lose patience, and looks at every answer."""
        await asyncio.sleep(at)
        asking = asyncio.create_task(self.ask(ask))
        if not (await asyncio.wait({asking}, timeout=patience))[0]:
            asking.cancel()
        try:
            results = await asking
        except asyncio.CancelledError:
            self.counts["left"] += 1
        except TimeoutError:
            self.counts["late"] += 1
            self.expect(asyncio.get_running_loop().time() >= at + ask.seconds, "a deadline passed early")
        except ItemError as error:
            self.counts[f"refused {error.code}"] += 1
            expected = {Code.OVERLOADED, Code.DEADLINE, *([Code.IMAGE_INVALID] if ask.image is not None else [])}
            self.expect(error.code in expected, f"an item refused as {error.code}")
        else:
            self._check(ask, results, asyncio.get_running_loop().time() - at)

    def _check(self, ask: Ask, results: list[Result], seconds: float) -> None:
        self.expect([r.response for r in results] == list(range(len(ask.responses))), "not one answer each")
        for result, logit, triple in zip(results, ask.logits(), ask.triples(), strict=True):
            if isinstance(result, Scored):
                self.counts["scored"] += 1
                self.expect(set(result.logits) == {logit}, "the score of another")
                self.expect(POISON_ID not in triple[1], "a score of a poisoned triple")
            else:
                self._check_failure(result, triple, seconds >= ask.seconds)

    def _check_failure(self, failed: Failed, triple: Triple, late: bool) -> None:
        error = failed.error
        if error.field == "response" and error.code is Code.INTERNAL:
            self.counts["quarantined"] += 1
            self.quarantined.add(triple)
            alone = any(seen[2] == triple[1] and seen[0] == triple[0].image for seen in self._lost_alone)
            self.expect(alone, "an innocent triple was quarantined")
        else:
            self.counts[f"failed {error.code}"] += 1
            self.expect(error.code is not Code.DEADLINE or late, "a deadline passed early")
            self.expect(error.code is not Code.INTERNAL or self.counts["fault"] > 0, "a fault without a fault")
            self.expect(error.code in {Code.DEADLINE, Code.INTERNAL, Code.OUT_OF_MEMORY}, f"a failure: {error.code}")

    async def close(self) -> None:
        """When all that still runs has run, nothing may be left."""
        self.trouble = Trouble()
        await asyncio.sleep(120)
        assert not self.broken
        assert [dispatcher.not_ready() for dispatcher in self.dispatchers] == [None] * len(self.dispatchers)
        assert (len(self.flights), self.scheduler.waiting) == (0, 0)
        assert set(self.scheduler.room.taken.values()) == set(self.pictures.room.taken.values()) == {0}
        keys = (f"{tenant}/{file.digest}" for tenant in TENANTS for file in FILES)
        assert not any(picture.holders for picture in map(self.slots.get, keys) if picture)
        for dispatcher in self.dispatchers:
            dispatcher.close()
        self.slots.close()


def _seen(group: GroupFrame) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    return group.images[0].digest if group.images else "", tuple(group.prompt), tuple(group.answers[0])


TENANTS = ("", "ward", "lab")


def random_ask(random: Random) -> Ask:
    words = [POISON if random.random() < 0.003 else "w" * random.randint(1, 3) for _ in range(random.randint(1, 6))]
    lengths = [random.choice((1, 1, 2, 5, 20)) for _ in words]
    responses = tuple(" ".join([word, *["and"] * length]) for word, length in zip(words, lengths, strict=True))
    image = random.choice((None, random.randrange(4), random.randrange(4), random.randrange(len(FILES))))
    lane = Lane.INTERACTIVE if random.random() < 0.4 else Lane.BULK
    question = " ".join(["why"] * random.choice((1, 2, 3)))
    return Ask(random.choice(TENANTS), lane, image, question, responses, random.choice((0.5, 2.0, 10.0, 60.0)))


async def hour(seed: int, trouble: Trouble, pads: bool) -> Counter[str]:
    world = World(seed, trouble, devices=2, pads=pads)
    random = Random(seed)
    asks = []
    for _ in range(40):
        burst = random.uniform(0, HOUR)
        asks += [(burst + random.expovariate(1), random_ask(random)) for _ in range(random.choice((5, 60, 120)))]
    patience = [random.expovariate(1) if random.random() < 0.2 else math.inf for _ in asks]
    async with asyncio.TaskGroup() as clients:
        for (at, ask), seconds in zip(asks, patience, strict=True):
            clients.create_task(world.client(at, ask, seconds if seconds < math.inf else 1000.0))
    await world.close()
    return world.counts


@pytest.mark.parametrize("pads", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_each_item_is_answered_once_and_right(virtual: asyncio.Runner, seed: int, pads: bool) -> None:
    counts = virtual.run(hour(seed, Trouble(crash=0.03, fault=0.01, refusal=0.01, decoder=0.3), pads))
    happened = {"scored", "run", "left", "late", "lost", "lost over poison", "fault", "quarantined", "dropped"}
    happened |= {"refused overloaded", "refused deadline", "refused image_invalid", "failed out_of_memory"}
    assert counts.keys() >= happened
    assert counts["scored"] > 1000


def test_without_trouble_all_that_is_accepted_is_scored_and_nothing_twice(virtual: asyncio.Runner) -> None:
    async def twins() -> None:
        world = World(devices=2)
        asks = [Ask("", Lane.BULK, n % 3, "why", ("a", "b", f"c {n % 2}")) for n in range(24)]
        async with asyncio.TaskGroup() as clients:
            for n, ask in enumerate(asks):
                clients.create_task(world.client(n * 0.01, ask, 1000.0))
        await world.close()
        assert +world.counts == {"scored": 24 * 3, "run": 3 * 2 + 6}

    virtual.run(twins())


def test_poison_takes_the_worker_down_a_few_times_and_its_neighbours_get_scores(virtual: asyncio.Runner) -> None:
    async def poisoned() -> None:
        world = World()
        asks = [Ask("", Lane.BULK, n, "why", ("a", "b")) for n in range(16)]
        asks[5] = Ask("", Lane.BULK, 5, "why", ("a", POISON, "b"))
        for _ in range(2):
            async with asyncio.TaskGroup() as clients:
                for ask in asks:
                    clients.create_task(world.client(0.0, ask, 1000.0))
        await world.close()
        assert world.counts["lost over poison"] <= math.ceil(math.log2(33)) + 1
        assert world.counts["quarantined"] == 2
        assert world.counts["scored"] == 2 * 32

    virtual.run(poisoned())


def test_bulk_work_waits_its_turn_and_no_longer_while_interactive_work_floods(virtual: asyncio.Runner) -> None:
    async def flooded() -> None:
        world = World()
        answer = "long " * 45
        flood = [Ask(str(n), Lane.INTERACTIVE, None, f"why {n}", (answer,)) for n in range(12)]

        async def insist(ask: Ask) -> None:
            for n in range(200):
                await world.ask(Ask(ask.tenant, ask.lane, None, f"{ask.question} {n}", ask.responses))

        batch = BASE_SECONDS + SECONDS_PER_COST * BATCH_COST
        waits = []
        async with asyncio.TaskGroup() as clients:
            for ask in flood:
                clients.create_task(insist(ask))
            for n in range(20):
                await asyncio.sleep(2)
                started = asyncio.get_running_loop().time()
                await world.ask(Ask("", Lane.BULK, None, f"bulk {n}", (answer,)))
                waits.append(asyncio.get_running_loop().time() - started)
        await world.close()
        assert batch < max(waits) <= (INTERACTIVE_IN_A_ROW + 2) * batch

    virtual.run(flooded())


def test_a_thousand_clients_that_leave_at_once_leave_no_work(virtual: asyncio.Runner) -> None:
    async def left() -> None:
        world = World(trouble=Trouble(decoder=0.1), queue_cost=10**6)
        random = Random(0)
        async with asyncio.TaskGroup() as clients:
            for _ in range(1000):
                patience = random.choice((DECODE_SECONDS, 0.3))
                clients.create_task(world.client(0.0, random_ask(random), patience))
        assert world.scheduler.waiting == 0
        assert sum(world.scheduler.room.taken.values()) <= BATCH_COST
        ran = world.counts["run"]
        await world.close()
        assert world.counts["left"] > 500
        assert world.counts["run"] == ran

    virtual.run(left())


def test_a_worker_lost_over_nothing_costs_time_and_no_score(virtual: asyncio.Runner) -> None:
    async def lost() -> None:
        world = World(trouble=Trouble(crash=1.0))
        asking = asyncio.create_task(world.client(0.01, Ask("", Lane.BULK, None, "why", ("a",)), 1000.0))
        await asyncio.sleep(RESPAWN_SECONDS / 2)
        assert world.counts == {"lost": 1}  # over the probe
        probe_again = BASE_SECONDS + 0.01
        await asyncio.sleep(RESPAWN_SECONDS / 2 + probe_again)
        world.trouble = Trouble()
        await asking
        await world.close()
        assert world.counts["scored"] == 1

    virtual.run(lost())


def test_a_triple_that_ran_alone_when_its_worker_was_lost_gets_a_second_chance(virtual: asyncio.Runner) -> None:
    async def alone() -> None:
        world = World()
        await asyncio.sleep(1)
        world.trouble = Trouble(crash=1.0)
        asking = asyncio.create_task(world.client(0.0, Ask("", Lane.BULK, None, "why", ("a",)), 1000.0))
        await asyncio.sleep(1)
        world.trouble = Trouble()
        await asking
        await world.close()
        assert (world.counts["lost"], world.counts["scored"]) == (1, 1)

    virtual.run(alone())


def test_an_idle_device_starts_at_once(virtual: asyncio.Runner) -> None:
    async def idle() -> None:
        world = World(devices=2)
        await asyncio.sleep(1)
        await world.ask(Ask("", Lane.BULK, None, "why", ("a",)))
        assert asyncio.get_running_loop().time() < 1 + 1.1 * BASE_SECONDS
        await world.close()

    virtual.run(idle())


def test_pixels_stay_where_they_are_until_the_device_has_seen_them(virtual: asyncio.Runner) -> None:
    async def many() -> None:
        world = World(queue_cost=10**6)
        async with asyncio.TaskGroup() as clients:
            for n in range(len(FILES)):
                clients.create_task(world.client(n / 1000, Ask("", Lane.BULK, n, "why", ("a",)), 1000.0))
        await world.close()
        assert world.counts["scored"] >= FEWEST_SLOTS
        assert world.counts["scored"] + world.counts["refused overloaded"] == len(FILES)

    virtual.run(many())
