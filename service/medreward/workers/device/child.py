"""A worker process: one backend on one device, fed by the front over a socket."""

import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from medreward import logs
from medreward.artifacts.manifest import Manifest
from medreward.artifacts.repository import verify
from medreward.backends.base import DeviceBroken, HeadOutputs
from medreward.errors import ConfigurationError, ItemError
from medreward.settings import Settings
from medreward.workers.device.loading import open_backend
from medreward.workers.device.runner import Done, Runner, loading
from medreward.workers.frames import (
    Beat,
    Child,
    Failure,
    FromChild,
    Load,
    Loaded,
    OutputsFrame,
    Ran,
    Refused,
    Rest,
    Run,
    Settled,
    ToChild,
)
from medreward.workers.memory import PixelMemory
from medreward.workers.process import be_a_child

BEAT_SECONDS: Final = 0.25
BROKEN_EXIT: Final = 70

log = logging.getLogger("medreward.worker")


def main() -> None:
    socket_fd, shared_fd = be_a_child()
    front = _Locked(socket_fd)
    threading.Thread(target=_beat, args=(front,), daemon=True).start()
    load = front.receive()
    assert isinstance(load, Load)
    settings = Settings(**load.settings)
    logs.configure(settings.log_level)
    folder = Path(load.folder) if load.folder else None
    manifest = Manifest.model_validate(load.manifest)
    try:
        with loading():
            backend = open_backend(settings, manifest, folder)
            if folder and (problems := verify(folder, manifest, load.verified_at)):
                raise ConfigurationError(f"model {manifest.name} refused: {'; '.join(problems.values())}")
            runner = Runner(backend)
    except ConfigurationError as error:
        front.send(Refused(str(error)))
        return
    front.send(Loaded(backend.runtime, backend.cost))
    serve(front, runner, PixelMemory(shared_fd))


def serve(front: "Ends", runner: Runner, memory: PixelMemory) -> None:
    """Runs what the front asks for, and returns when it is gone. A broken device ends the process at once."""
    while True:
        try:
            asked = front.receive()
        except (EOFError, OSError):
            return
        try:
            front.send(_answer(asked, runner, memory))
        except DeviceBroken:
            log.exception("the device is broken for this process")
            os._exit(BROKEN_EXIT)  # without a clean-up that would wait for the device


def _answer(asked: ToChild, runner: Runner, memory: PixelMemory) -> Ran | Settled:
    """Returns the answer to what the front asked. Fails with DeviceBroken."""
    if isinstance(asked, Run):
        return _ran(runner.score([frame.group(memory) for frame in asked.groups]))
    try:
        if isinstance(asked, Rest):
            runner.rest()
        else:
            runner.resume()
    except DeviceBroken:
        raise
    except Exception as error:
        log.exception("the worker could not rest or resume")
        return Settled(str(error) if isinstance(error, ConfigurationError) else type(error).__name__)
    return Settled()


def _ran(done: Done) -> Ran:
    """Returns the message for the front."""

    def frame(outcome: HeadOutputs | ItemError) -> OutputsFrame | Failure:
        if isinstance(outcome, ItemError):
            return Failure(outcome.code, outcome.detail, outcome.field)
        return OutputsFrame(outcome.shape[1], outcome.tobytes())

    outcomes: list[list[OutputsFrame | Failure]] = [[frame(outcome) for outcome in group] for group in done.outcomes]
    return Ran(outcomes, done.started, done.seconds, done.counts)


def _beat(front: "_Locked") -> None:
    """Tells the front that the process lives, until the front is gone."""
    try:
        while True:
            front.send(Beat())
            time.sleep(BEAT_SECONDS)
    except OSError:
        return


class Ends(Protocol):
    """What `serve` needs of the front's socket."""

    def receive(self) -> ToChild: ...

    def send(self, frame: FromChild) -> None: ...


class _Locked(Child):
    """The child's end of the socket for two threads that send."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._lock = threading.Lock()

    def send(self, frame: Any) -> None:
        with self._lock:
            super().send(frame)


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # the front ended while we had an answer for it
        main()
