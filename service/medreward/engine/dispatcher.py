"""Feeds the worker: an idle device never waits for company, what arrives while it runs forms the next batch."""

import asyncio
import time

from medreward.backends.base import Group
from medreward.engine.scheduler import Answer, Scheduler, Waiting
from medreward.errors import ItemError
from medreward.metrics import Metrics
from medreward.types import Lane
from medreward.workers.worker import Batch, Worker


class Dispatcher:
    def __init__(self, worker: Worker, scheduler: Scheduler, metrics: Metrics) -> None:
        self._worker = worker
        self._scheduler = scheduler
        self._metrics = metrics
        self._work = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="dispatcher")
        self.cost_per_second = 0.0  # of late, on the device

    async def submit(self, group: Group, cost: int, lane: Lane) -> Answer:
        """The answer, or the ItemError that the group ended in."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._scheduler.put(Waiting(group, cost, lane, time.monotonic(), answer))
        self._work.set()
        return await answer

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            batch = self._scheduler.next_batch()
            if not batch:
                self._work.clear()
                await self._work.wait()
                continue
            dispatched = time.monotonic()
            done = await self._worker.score([waiting.group for waiting in batch])
            self._observe(batch, done, dispatched)
            for waiting, outcome in zip(batch, done.outcomes, strict=True):
                if waiting.answer.done():
                    continue  # its client left
                if isinstance(outcome, ItemError):
                    waiting.answer.set_exception(outcome)
                else:
                    waiting.answer.set_result(Answer(outcome, dispatched - waiting.since, done.seconds))

    def _observe(self, batch: list[Waiting], done: Batch, dispatched: float) -> None:
        self._metrics.batch_items.observe(sum(len(waiting.group.answers) for waiting in batch))
        self._metrics.inference_duration.observe(done.seconds)
        self._metrics.image_encodes.inc(done.image_encodes)
        for waiting in batch:
            self._metrics.queue_wait.labels(waiting.lane).observe(dispatched - waiting.since)
        rate = sum(waiting.cost for waiting in batch) / max(done.seconds, 1e-6)
        self.cost_per_second = rate if not self.cost_per_second else 0.9 * self.cost_per_second + 0.1 * rate
