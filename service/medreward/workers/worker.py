"""The worker of a device: it runs batches, one at a time, away from the event loop."""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from medreward.backends.base import Backend, Group, Logits
from medreward.errors import Code, ItemError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of each group, in order, and the time the device took."""

    outcomes: list[Logits | ItemError]
    seconds: float
    image_encodes: int


class Worker:
    """Runs in this process; a backend needs no lock, for it has one thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")

    async def warm_up(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._backend.warm_up)

    async def score(self, groups: Sequence[Group]) -> Batch:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, groups)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self, groups: Sequence[Group]) -> Batch:
        started = time.perf_counter()
        encoded_before = self._backend.image_encodes
        outcomes = self._outcomes(groups)
        return Batch(outcomes, time.perf_counter() - started, self._backend.image_encodes - encoded_before)

    def _outcomes(self, groups: Sequence[Group]) -> list[Logits | ItemError]:
        try:
            return list(self._backend.score(groups))
        except Exception as error:
            if len(groups) > 1:  # a bad group must not take its neighbours along
                return [outcome for group in groups for outcome in self._outcomes([group])]
            log.error("group failed on the device", extra={"error": type(error).__name__})
            if isinstance(error, MemoryError):
                return [ItemError(Code.OUT_OF_MEMORY, "the device has no memory for this item")]
            return [ItemError(Code.INTERNAL, "the model failed on this item")]
