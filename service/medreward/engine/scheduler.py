"""What runs next: pure policy, no clock of its own, no I/O."""

import asyncio
from collections import deque
from dataclasses import dataclass

from medreward.backends.base import Group, Logits
from medreward.errors import Code, ItemError
from medreward.types import Lane


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    group: Group
    cost: int
    lane: Lane
    since: float
    answer: "asyncio.Future[Answer]"


@dataclass(frozen=True, slots=True)
class Answer:
    logits: Logits
    queue_s: float
    inference_s: float


class Scheduler:
    """Admits by cost and cuts batches by cost, first come, first served."""

    def __init__(self, queue_cost: int, batch_cost: int) -> None:
        self._queue_cost = queue_cost
        self._batch_cost = batch_cost
        self._waiting: deque[Waiting] = deque()
        self.admitted = 0

    def admit(self, cost: int) -> None:
        """Reserve room for work of this cost; `release` gives it back."""
        if self.admitted and self.admitted + cost > self._queue_cost:
            raise ItemError(Code.OVERLOADED, "the server has more work than it can take; try again later")
        self.admitted += cost

    def release(self, cost: int) -> None:
        self.admitted -= cost

    def put(self, waiting: Waiting) -> None:
        self._waiting.append(waiting)

    def next_batch(self) -> list[Waiting]:
        """What still has somebody waiting for it, as much as a batch may cost, at least one group if there is any."""
        batch: list[Waiting] = []
        cost = 0
        while self._waiting:
            first = self._waiting[0]
            if first.answer.done():
                self._waiting.popleft()
                continue
            if batch and cost + first.cost > self._batch_cost:
                break
            batch.append(self._waiting.popleft())
            cost += first.cost
        return batch
