"""Feeds a worker. An idle device gets work at once, and what arrives while it runs forms its next batch."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import numpy as np

from medreward.engine.queue.flights import Flight, Flights
from medreward.engine.queue.scheduler import Scheduler
from medreward.errors import Code, ConfigurationError, ItemError
from medreward.metrics import Metrics
from medreward.types import Clock, DeviceBatch, SleepLevel, Trace
from medreward.workers.device.runner import Done
from medreward.workers.device.worker import Worker, WorkerLost
from medreward.workers.frames import GroupFrame, ImageFrame

log = logging.getLogger(__name__)

PROBE_AGAIN_SECONDS: Final = 0.5


class Dispatcher:
    """One for each worker; they share the scheduler, the flights and the event that there is work."""

    def __init__(
        self,
        device: int,
        worker: Worker,
        scheduler: Scheduler[Flight],
        flights: Flights,
        work: asyncio.Event,
        metrics: Metrics,
        clock: Clock,
        probe: GroupFrame,
        probe_seconds: float,
        fingerprint: str = "",
    ) -> None:
        self._device = device
        self._worker = worker
        self._scheduler = scheduler
        self._flights = flights
        self._work = work
        self._metrics = metrics
        self._clock = clock
        self._probe = probe
        self._probe_seconds = probe_seconds
        self._fingerprint = fingerprint
        self._proven = False
        self.heads = 0  # of the model's ensemble, as the last probe had them
        self._tried = asyncio.Event()
        self._due = True
        self._at_work = asyncio.Lock()  # held while the worker has a batch or a test triple
        self._task = asyncio.create_task(self._run(), name=f"dispatcher-{device}")

    def close(self) -> None:
        self._task.cancel()

    async def sleep(self, level: SleepLevel) -> None:
        """Puts the worker to sleep, after what it has in hand. Fails with a ConfigurationError."""
        async with self._at_work:
            await self._worker.sleep(level)

    async def wake(self) -> None:
        """Wakes the worker; returns when it has given finite numbers. Fails with a ConfigurationError."""
        async with self._at_work:
            await self._worker.wake()
            self._due = True
            self._tried.clear()
            self._work.set()
        await self.probed()

    def not_ready(self) -> str | None:
        """Returns why the worker gets no work now, or None."""
        if self._task.done() or not self._worker.is_ready():
            return "the worker is being replaced"
        return None if self._proven else "the model gave no finite numbers for the last test triple"

    async def probed(self) -> None:
        """Returns when the device has given finite numbers; ConfigurationError if the first probe was in vain."""
        await self._tried.wait()
        if not self._proven:
            raise ConfigurationError(
                "the model gave no finite numbers for a test triple, or its process was lost: the log says which"
            )

    async def _run(self) -> None:
        """Runs for as long as the server does."""
        while True:
            await self._worker.ready()
            async with self._at_work:
                if self._due and self._worker.is_ready():
                    await self._prove()
                if not self._worker.is_ready():  # asleep, or lost over the probe; no work is to blame
                    continue
                cut = self._scheduler.next_batch(self._clock(), self._device)
                for flight in cut.dropped:
                    self._flights.land(flight, ItemError(Code.DEADLINE, "the deadline passed in the queue"))
                if cut.batch:
                    await self._fly(cut.batch)
            if not cut.batch and not cut.dropped:
                self._work.clear()
                try:
                    await asyncio.wait_for(self._work.wait(), self._probe_seconds)
                except TimeoutError:  # idle for so long that a probe is due
                    self._due = True

    async def _prove(self) -> None:
        """Sends a test triple to the device, which is ready if the numbers are finite. No metric counts it."""
        try:
            done = await self._worker.score([self._probe])
        except Exception:  # WorkerLost, most likely
            log.exception("the worker was lost over a test triple", extra={"device": self._device})
            self._proven = False
            self._tried.set()
            return
        outcome = done.outcomes[0][0]
        self._proven = not isinstance(outcome, ItemError) and bool(np.isfinite(outcome).all())
        self.heads = self.heads if isinstance(outcome, ItemError) else len(outcome)
        self._due = not self._proven
        self._tried.set()
        if not self._proven:
            log.error("the model gave no finite numbers for a test triple", extra={"device": self._device})
            await asyncio.sleep(PROBE_AGAIN_SECONDS)

    async def _fly(self, groups: list[list[Flight]]) -> None:
        """Runs one batch on the device and lands its flights, or puts them back when the worker was lost."""
        flights = [flight for group in groups for flight in group]
        dispatched = self._clock()
        try:
            done = await self._worker.score([_frame(group) for group in groups])
            outcomes = [outcome for group in done.outcomes for outcome in group]
            if len(outcomes) != len(flights):
                raise RuntimeError("the worker answered another number of triples than it was given")
        except WorkerLost as lost:
            self._blame(flights, lost)
            return
        except Exception:
            log.exception("batch failed", extra={"device": self._device, "triples": len(flights)})
            for flight in flights:
                self._flights.land(flight, ItemError(Code.INTERNAL, "the server failed on this item; its log says why"))
            return
        self._observe(flights, done, dispatched)
        self._trace(flights, done, dispatched)
        for flight, outcome in zip(flights, outcomes, strict=True):
            self._flights.land(flight, outcome, dispatched - flight.since, done.seconds)

    def _blame(self, flights: Sequence[Flight], lost: WorkerLost) -> None:
        """Puts the batch back in two halves. A triple that took a worker down twice, now alone, is quarantined."""
        log.error("worker lost", extra={"device": self._device, "reason": lost.reason, "triples": len(flights)})
        self._due = True
        if len(flights) == 1 and flights[0].suspect:
            self._flights.quarantine(flights[0])
        else:
            self._scheduler.put_suspects(flights)
            self._work.set()

    def _observe(self, flights: Sequence[Flight], done: Done, dispatched: float) -> None:
        metrics, counts = self._metrics, done.counts
        metrics.batch_items.observe(len(flights))
        metrics.inference_duration.observe(done.seconds)
        metrics.image_encodes.inc(counts.image_encodes)
        metrics.prefix_runs.inc(counts.prefix_runs)
        metrics.count_cache("image_features", counts.image_hits, counts.image_encodes)
        metrics.count_cache("prefixes", counts.prefix_hits, counts.prefix_runs)
        for flight in flights:
            metrics.queue_wait.labels(flight.key.lane).observe(dispatched - flight.since)
        self._scheduler.time.learn(sum(flight.cost for flight in flights), done.seconds)

    def _trace(self, flights: Sequence[Flight], done: Done, dispatched: float) -> None:
        """Notes the batch in the traces of the requests in it: once for all, and how long each of them waited."""
        waited_since: dict[Trace, float] = {}
        for flight in flights:
            for trace in flight.traces:
                waited_since[trace] = min(flight.since, waited_since.get(trace, flight.since))
        if not waited_since:
            return
        first, *others = waited_since
        batch = first.of_batch(self._traced(flights, done, dispatched), others)
        for trace, since in waited_since.items():
            trace.phase("queue", since, dispatched)
            trace.phase("inference", done.started, done.started + done.seconds, batch)

    def _traced(self, flights: Sequence[Flight], done: Done, dispatched: float) -> DeviceBatch:
        counts, lengths = done.counts, [flight.length for flight in flights]
        padding = max(lengths) * len(lengths) - sum(lengths) if self._worker.cost.pads else 0
        figures: dict[str, str | int] = {
            "batch.responses": len(flights),
            "batch.cost": sum(flight.cost for flight in flights),
            "batch.padding": padding,
            "batch.image_encodes": counts.image_encodes,
            "batch.image_hits": counts.image_hits,
            "batch.prompt_runs": counts.prefix_runs,
            "batch.prompt_hits": counts.prefix_hits,
            "device": self._device,
            "model.fingerprint": self._fingerprint,
            "model.runtime": str(self._worker.runtime),
        }
        return DeviceBatch(dispatched, self._clock(), counts.phases, figures)


def _frame(flights: Sequence[Flight]) -> GroupFrame:
    first = flights[0]
    images = [ImageFrame(each.place, each.digest, each.tenant, each.cut) for each in first.pictures]
    return GroupFrame(images, first.prompt, [flight.answer for flight in flights], first.key.expert)
