"""Child processes of the front: started with a socket and shared memory, ended with their socket or by force."""

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from medreward.workers.frames import Front

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class ChildProcess:
    def __init__(self, process: asyncio.subprocess.Process, front: Front) -> None:
        self._process = process
        self.front = front

    @classmethod
    async def start(
        cls, run: Sequence[str], shared_fd: int, variables: Mapping[str, str] | None = None
    ) -> "ChildProcess":
        """Starts `run`, an interpreter with what it is to run. Fails with an OSError where there is none."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                fds = (theirs.fileno(), shared_fd)
                command = [*run, *map(str, fds)]
                # A session of its own: what a terminal or a service manager signals, the front decides about.
                process = await asyncio.create_subprocess_exec(
                    *command,
                    pass_fds=fds,
                    start_new_session=True,
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, **(variables or {})},
                )
            return cls(process, await Front.of(ours))
        except BaseException:
            ours.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_gone(self) -> bool:
        return self._process.returncode is not None

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def end(self, patience: float = 2.0) -> None:
        """Ends the child by closing its socket, and by force when it has not ended after `patience` seconds."""
        self.front.close()
        try:
            await asyncio.wait_for(self._process.wait(), patience)
        except TimeoutError:
            self.kill()
            await self._process.wait()


def be_a_child() -> tuple[int, int]:
    """Called in the child. Returns the descriptors of its socket and of the shared memory."""
    end_with_the_front()
    return int(sys.argv[1]), int(sys.argv[2])


def end_with_the_front() -> None:
    """Makes this process ignore the signals that the front handles, and end when the front ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # even in the middle of a batch, or stopped
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
