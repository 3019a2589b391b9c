"""A worker in a process of its own. It is watched and replaced, so that a crash or a hang costs its batch and a
moment.
"""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from medreward.artifacts.manifest import Manifest
from medreward.backends.base import CostModel, HeadOutputs
from medreward.errors import ConfigurationError, ItemError
from medreward.settings import Settings
from medreward.types import Runtime, SleepLevel
from medreward.workers.device.runner import Done
from medreward.workers.device.worker import WorkerLost
from medreward.workers.frames import Failure, GroupFrame, Load, Loaded, Ran, Refused, Rest, Resume, Run, Settled
from medreward.workers.process import ChildProcess

WATCH_SECONDS: Final = 0.25
PAUSES: Final = (0.0, 0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0)  # before a restart, by how many came lately
CHILD: Final = "medreward.workers.device.child"
ELSEWHERE: Final = Path(__file__).with_name("elsewhere.py")
CALM_SECONDS: Final = 30.0  # without a loss: the next restart is the first again

log = logging.getLogger(__name__)


class ProcessWorker:
    """Starts, watches and replaces a worker process. `restarted` is called with the reason of every loss.

    `runtime` and `cost` are known once it has started.
    """

    runtime: Runtime
    cost: CostModel

    def __init__(
        self,
        settings: Settings,
        manifest: Manifest,
        folder: Path | None,
        shared_fd: int,
        restarted: Callable[[str], None],
        device: int = 0,
        verified_at: int = 0,
    ) -> None:
        self._settings = settings
        self._manifest = manifest
        self._folder = folder
        self._verified_at = verified_at
        self._shared_fd = shared_fd
        self._restarted = restarted
        self._device = device
        self._child: ChildProcess | None = None
        self._ready = asyncio.Event()
        self._asleep = False
        self._batch: asyncio.Future[Ran] | None = None
        self._settled: asyncio.Future[str | None] | None = None
        self._batch_since = 0.0
        self._beat = 0.0
        self._losses: list[float] = []
        self._life: asyncio.Task[None] | None = None

    async def start(self) -> None:
        python = self._settings.worker_python
        if python and not (python.is_file() and os.access(python, os.X_OK)):
            raise ConfigurationError(f"--worker-python {python} is no program: name a Python interpreter")
        await self._spawn()
        self._life = asyncio.create_task(self._live(), name="worker")

    async def ready(self) -> None:
        await self._ready.wait()

    def is_ready(self) -> bool:
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def state(self) -> dict[str, object]:
        return {"ready": self.is_ready(), "pid": self.pid, "device": self._device}

    async def score(self, groups: Sequence[GroupFrame]) -> Done:
        if not self._ready.is_set() or self._child is None:
            raise WorkerLost("crash")
        self._batch = asyncio.get_running_loop().create_future()
        self._batch_since = time.monotonic()
        try:
            with contextlib.suppress(OSError):  # the reader learns of the child's end
                await self._child.front.send(Run(groups))
            ran = await self._batch
        finally:
            self._batch = None
        outcomes: list[list[HeadOutputs | ItemError]] = [
            [frame.error() if isinstance(frame, Failure) else frame.outputs() for frame in group]
            for group in ran.outcomes
        ]
        return Done(outcomes, ran.started, ran.seconds, ran.counts)

    async def sleep(self, level: SleepLevel) -> None:
        self._asleep = True
        self._ready.clear()
        if level is SleepLevel.NOTHING_KEPT:
            await self.close()
            self._child = None
        else:
            await self._settle(Rest())

    async def wake(self) -> None:
        if self._child is None or self._child.is_gone:
            await self.start()
        else:
            await self._settle(Resume())
            self._ready.set()
        self._asleep = False

    async def close(self) -> None:
        if self._life:
            self._life.cancel()
        if self._child:
            await self._child.end()

    async def _settle(self, frame: Rest | Resume) -> None:
        """Sends the frame and returns when the process has done it. Fails with a ConfigurationError when it cannot, or
        takes longer than a model may take to load, or is lost over it."""
        assert self._child is not None
        self._settled = asyncio.get_running_loop().create_future()
        try:
            await self._child.front.send(frame)
            async with asyncio.timeout(self._settings.load_seconds):
                problem = await self._settled
        except (OSError, TimeoutError, WorkerLost):
            problem = "its process was lost over it"
        finally:
            self._settled = None
        if problem:
            raise ConfigurationError(f"the worker of device {self._device} could not do it: {problem}")

    async def _spawn(self) -> None:
        """Starts a process. Fails with a ConfigurationError or an OSError when it does not load its model."""
        visible = _visible(self._device, self._settings.tensor_parallel)
        # The front has put the model on this disk: nothing that the worker imports has to ask the hub, so none may.
        variables = {"CUDA_VISIBLE_DEVICES": visible, "HF_HUB_OFFLINE": "1"}
        self._child = await ChildProcess.start(_command(self._settings.worker_python), self._shared_fd, variables)
        settings, manifest = self._settings.model_dump(mode="json"), self._manifest.model_dump(mode="json")
        folder = str(self._folder) if self._folder else None
        try:
            answer = await self._answer(self._child, Load(settings, manifest, folder, self._verified_at))
        except BaseException:
            self._child.kill()
            self._child.front.close()
            raise
        if isinstance(answer, Refused):
            await self._child.end()
            raise ConfigurationError(answer.message)
        self.runtime, self.cost = answer.runtime, answer.cost
        self._beat = time.monotonic()
        self._ready.set()

    async def _answer(self, child: ChildProcess, load: Load) -> Loaded | Refused:
        """Returns what the process says when it has loaded its model. Fails when it says nothing in time, or ends."""
        seconds = self._settings.load_seconds
        try:
            await child.front.send(load)
            async with asyncio.timeout(seconds):
                while not isinstance(answer := await child.front.receive(), Loaded | Refused):
                    pass
        except TimeoutError:
            raise ConfigurationError(f"the model did not load within {seconds:g} s: raise --load-seconds") from None
        except (OSError, EOFError):
            raise ConfigurationError(
                "the worker process ended while it loaded the model: it was killed, perhaps for want of memory, "
                "or it failed as its own lines in the log say"
            ) from None
        return answer

    async def _live(self) -> None:
        """Replaces the process whenever it is lost, for as long as the worker lives."""
        while True:
            reason = await self._until_lost()
            self._ready.clear()
            assert self._child is not None
            self._child.kill()
            await self._child.end()
            self._restarted(reason)
            for waiting in (self._batch, self._settled):
                if waiting and not waiting.done():
                    waiting.set_exception(WorkerLost(reason))
            if self._asleep:  # a new process would take the device that something else has now
                return
            await self._respawn()

    async def _until_lost(self) -> str:
        """Returns `crash` or `hang` when the process is lost."""
        assert self._child is not None
        reading = asyncio.create_task(self._read(self._child))
        try:
            silent = 0  # rounds, not seconds: while this process itself stood still, nobody listened
            while True:
                heard = self._beat
                await asyncio.wait({reading}, timeout=WATCH_SECONDS)
                if reading.done():
                    return "crash"
                silent = silent + 1 if self._beat == heard else 0
                if silent * WATCH_SECONDS > self._settings.hang_seconds:
                    return "hang"
                if self._batch and time.monotonic() - self._batch_since > self._settings.batch_seconds:
                    return "hang"
        finally:
            reading.cancel()

    async def _read(self, child: ChildProcess) -> None:
        """Takes the child's frames until it is gone."""
        with contextlib.suppress(OSError, EOFError):
            while True:
                frame = await child.front.receive()
                self._beat = time.monotonic()
                if isinstance(frame, Ran) and self._batch and not self._batch.done():
                    self._batch.set_result(frame)
                if isinstance(frame, Settled) and self._settled and not self._settled.done():
                    self._settled.set_result(frame.problem)

    async def _respawn(self) -> None:
        """Starts a process until one is ready. The more were lost lately, the longer it waits before."""
        while True:
            now = time.monotonic()
            self._losses = [at for at in self._losses if now - at < CALM_SECONDS] + [now]
            await asyncio.sleep(PAUSES[min(len(self._losses), len(PAUSES)) - 1])
            try:
                await self._spawn()
            except (ConfigurationError, OSError) as error:
                reason = str(error) if isinstance(error, ConfigurationError) else type(error).__name__
                log.error("worker did not start", extra={"error": reason})
            else:
                log.info("worker restarted", extra=self.state())
                return


def _command(python: Path | None) -> list[str]:
    """Returns what starts a worker: in this environment, or in that of another interpreter."""
    return [str(python), "-P", str(ELSEWHERE)] if python else [sys.executable, "-m", CHILD]


def _visible(worker: int, each: int) -> str:
    """Returns CUDA_VISIBLE_DEVICES for a worker: its own devices among those that this process was given."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    own = range(worker * each, (worker + 1) * each)
    return ",".join(given[device] if device < len(given) else str(device) for device in own)
