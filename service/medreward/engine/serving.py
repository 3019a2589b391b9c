"""Starts a model with all that scores it, from its files to its processes."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medreward.cores import available_cores
from medreward.engine.images.pictures import Pictures
from medreward.engine.images.resolve import Images
from medreward.engine.images.slots import Slots
from medreward.engine.items import Items
from medreward.engine.model import Model, open_model
from medreward.engine.queue.dispatcher import Dispatcher
from medreward.engine.queue.flights import Flight, Flights
from medreward.engine.queue.scheduler import Room, Scheduler
from medreward.errors import ConfigurationError
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import Clock, ModelRef, Options, SleepLevel
from medreward.workers.decode.pool import Decoders
from medreward.workers.device.loading import open_backend
from medreward.workers.device.process_worker import ProcessWorker
from medreward.workers.device.worker import InlineWorker, Worker
from medreward.workers.frames import GroupFrame, ImageFrame

PROBE: Final = "probe"
SPREAD: Final = (
    "The standard deviation of a dimension's logit over the heads of the model's ensemble: 0 where they agree, without "
    "an upper bound. It is no probability of error."
)


@dataclass(eq=False)
class Serving:
    """A model that is served, and the parts of the engine that serve it."""

    settings: Settings
    metrics: Metrics
    model: Model
    ref: ModelRef
    items: Items
    workers: list[Worker]
    dispatchers: list[Dispatcher]
    pictures: Pictures
    decoders: Decoders
    slots: Slots
    scheduler: Scheduler[Flight]
    flights: Flights

    def __post_init__(self) -> None:
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Counts a request that this serving answers. It is `idle` when there is none."""
        self.in_flight += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self.idle.set()

    def show(self) -> None:
        """Lets the gauges of queue and caches read this serving from now on."""
        self.metrics.watch_queue(self.scheduler.room.taken, self.pictures.room.taken)
        self.metrics.score_cache_bytes.watch(lambda: self.flights.cached_bytes, self.settings.score_cache_bytes)
        self.metrics.pixel_cache_bytes.watch(lambda: self.slots.bytes, self.slots.size)

    async def sleep(self, level: SleepLevel) -> None:
        """Puts all devices to sleep. Fails with a ConfigurationError when one cannot; then all are awake again."""
        try:
            await asyncio.gather(*(dispatcher.sleep(level) for dispatcher in self.dispatchers))
        except ConfigurationError:
            await self.wake()
            raise

    async def wake(self) -> None:
        """Returns when every device has given finite numbers again. Fails with a ConfigurationError."""
        await asyncio.gather(*(dispatcher.wake() for dispatcher in self.dispatchers))

    def not_ready(self) -> str | None:
        """Returns why no worker is ready, or None when one is: it is up, and its last probe gave finite numbers."""
        reasons = [dispatcher.not_ready() for dispatcher in self.dispatchers]
        return None if None in reasons else reasons[0]

    @property
    def uncertainty(self) -> str | None:
        """What the model's uncertainty means, in words; None for a model with a single head, which gives none."""
        if self.dispatchers[0].heads < 2:
            return None
        return self.model.manifest.uncertainty or SPREAD

    def processes(self) -> Iterator[tuple[str, int]]:
        """Yields role and process id of each child process: workers, ranks of a worker, decoders."""
        for worker in self.workers:
            if worker.pid:
                yield "worker", worker.pid
                listed = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
                with suppress(OSError):  # the kernel does not list them, or the worker has just ended
                    yield from [("rank", int(child)) for child in listed.read_text().split()]
        yield from (("decoder", child.pid) for child in self.decoders.children)

    async def close(self) -> None:
        for dispatcher in self.dispatchers:
            dispatcher.close()
        await asyncio.gather(self.decoders.close(), *(worker.close() for worker in self.workers))
        self.slots.close()


async def start_serving(settings: Settings, images: Images, metrics: Metrics, clock: Clock) -> Serving:
    """Loads the model; returns when a probe has been through every device.

    Fails with a ConfigurationError when the model cannot be loaded or gives no finite numbers; then nothing is left.
    """
    model = await asyncio.to_thread(open_model, settings)
    slots = Slots(model.image.pixels, settings.pixel_cache_bytes)
    cores = settings.decoders or available_cores()
    processes = cores if settings.isolation == "process" else 0
    decoders = Decoders(slots.memory, processes, cores, settings.decode_seconds)
    workers = _workers(settings, model, slots, metrics)
    started = (decoders.start(), *(worker.start() for worker in workers))
    try:
        await asyncio.gather(*started)
    except BaseException:
        await asyncio.gather(decoders.close(), *(worker.close() for worker in workers))
        raise
    serving = _assemble(settings, model, images, slots, decoders, workers, metrics, clock)
    try:
        for dispatcher in serving.dispatchers:
            await dispatcher.probed()
    except BaseException:
        await serving.close()
        raise
    return serving


def _workers(settings: Settings, model: Model, slots: Slots, metrics: Metrics) -> list[Worker]:
    if settings.isolation == "inline" and not settings.worker_python:
        return [InlineWorker(lambda: open_backend(settings, model.manifest, model.folder), slots.memory)]

    def restarted(reason: str) -> None:
        metrics.worker_restarts.labels(reason).inc()

    # The workers share the cores of this machine.
    threads = settings.threads or max(1, available_cores() // (settings.workers * settings.tensor_parallel))
    own = settings.model_copy(update={"threads": threads})
    manifest, folder = model.manifest, model.folder
    return [
        ProcessWorker(own, manifest, folder, slots.memory.fd, restarted, device, model.verified_at)
        for device in range(settings.workers)
    ]


def _assemble(
    settings: Settings,
    model: Model,
    images: Images,
    slots: Slots,
    decoders: Decoders,
    workers: list[Worker],
    metrics: Metrics,
    clock: Clock,
) -> Serving:
    cost = workers[0].cost
    scheduler: Scheduler[Flight] = Scheduler(
        settings.queue_cost, settings.batch_cost, len(workers), cost.pads, settings.bulk_batch_ms / 1000
    )
    flights = Flights(scheduler, settings.score_cache_bytes, metrics)
    pictures = Pictures(slots, model.image, decoders, Room(settings.queue_pixels), metrics, clock)
    ref = model.ref(workers[0].runtime)
    work = asyncio.Event()
    dispatchers = [
        Dispatcher(
            device,
            worker,
            scheduler,
            flights,
            work,
            metrics,
            clock,
            _probe(model, slots),
            settings.probe_seconds,
            ref.fingerprint,
        )
        for device, worker in enumerate(workers)
    ]
    items = Items(model, cost, images, pictures, scheduler, flights, work, clock, settings)
    return Serving(
        settings, metrics, model, ref, items, workers, dispatchers, pictures, decoders, slots, scheduler, flights
    )


def _probe(model: Model, slots: Slots) -> GroupFrame:
    """Returns a triple that tests a worker. It has an image only if the model requires one."""
    required = model.manifest.image.required
    prompt = model.text.prompt(PROBE, required)
    answer = model.text.answer(prompt, PROBE, Options())
    spec = model.image.of(1, 1)
    images = [ImageFrame(slots.new(PROBE, spec).place, PROBE, "", spec.cut)] if required else []
    return GroupFrame(images, prompt.ids, [answer.ids])
