"""The contract between the engine and a worker, which has a device and runs one batch at a time; and the worker that
lives in this process."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from medreward.backends.base import Backend, CostModel
from medreward.types import Runtime, SleepLevel
from medreward.workers.device.runner import Done, Runner, loading
from medreward.workers.frames import GroupFrame
from medreward.workers.memory import PixelMemory


class WorkerLost(Exception):
    """The worker crashed or hung while it had a batch; it is being replaced."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Worker(Protocol):
    """Runs the batches of one device."""

    async def start(self) -> None:
        """Returns when the backend is loaded and warm. Fails with a ConfigurationError if it never will be."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def cost(self) -> CostModel: ...

    async def ready(self) -> None:
        """Returns when a batch can be given."""

    def is_ready(self) -> bool: ...

    @property
    def pid(self) -> int | None:
        """The id of the worker's own process, if it has one now."""

    def state(self) -> dict[str, object]: ...

    async def score(self, groups: Sequence[GroupFrame]) -> Done:
        """Returns the outcomes of a batch, one at a time. Fails with WorkerLost."""

    async def sleep(self, level: SleepLevel) -> None:
        """Returns when the device is free. Then it is not ready until it wakes. It must have no batch."""

    async def wake(self) -> None:
        """Returns when a batch can be given again. Fails with a ConfigurationError when the device is taken, and
        then still sleeps."""

    async def close(self) -> None: ...


class InlineWorker:
    """Runs in a thread of this process, for `medreward score` and for tests."""

    runtime: Runtime
    cost: CostModel

    def __init__(self, open_backend: Callable[[], Backend], memory: PixelMemory) -> None:
        self._open_backend = open_backend
        self._memory = memory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._awake = asyncio.Event()
        self._runner: Runner | None = None  # None: nothing is loaded

    async def start(self) -> None:
        def load() -> Runner:
            with loading():
                backend = self._open_backend()
                self.runtime, self.cost = backend.runtime, backend.cost
                return Runner(backend)

        self._runner = await asyncio.get_running_loop().run_in_executor(self._thread, load)
        self._awake.set()

    async def ready(self) -> None:
        await self._awake.wait()

    def is_ready(self) -> bool:
        return self._awake.is_set()

    @property
    def pid(self) -> int | None:
        return None

    def state(self) -> dict[str, object]:
        return {"ready": self.is_ready()}

    async def score(self, groups: Sequence[GroupFrame]) -> Done:
        if self._runner is None:
            raise WorkerLost("asleep")
        whole = [frame.group(self._memory) for frame in groups]
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._runner.score, whole)

    async def sleep(self, level: SleepLevel) -> None:
        self._awake.clear()
        if level is SleepLevel.NOTHING_KEPT:
            self._runner = None
        elif self._runner:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._runner.rest)

    async def wake(self) -> None:
        if self._runner is None:
            await self.start()
            return
        await asyncio.get_running_loop().run_in_executor(self._thread, self._runner.resume)
        self._awake.set()

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
