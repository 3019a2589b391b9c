"""The decoder processes: they read files that strangers sent, and one that crashes or hangs is replaced."""

import asyncio
import logging
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from medreward.encoding.image import decode
from medreward.types import Lane
from medreward.workers.frames import Decode, Decoded, Failure
from medreward.workers.memory import PixelMemory
from medreward.workers.process import ChildProcess

DECODER: Final = "medreward.workers.decode.child"
SPAWN_AGAIN_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class DecoderLost(Exception):
    """The decoder process crashed or took too long over an image; it is being replaced."""


class Decoders:
    """Processes that decode one image at a time each, interactive images first. Without processes, threads decode."""

    def __init__(self, memory: PixelMemory, processes: int, threads: int, seconds: float) -> None:
        """`seconds` is how long a process may take over an image before it counts as lost."""
        self._memory = memory
        self._processes = processes
        self._seconds = seconds
        self._idle: list[ChildProcess] = []
        self._waiting: dict[Lane, deque[asyncio.Future[ChildProcess]]] = {lane: deque() for lane in Lane}
        self.children: set[ChildProcess] = set()
        self._replacing: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.count = processes or threads

    async def start(self) -> None:
        await asyncio.gather(*(self._spawn() for _ in range(self._processes)))

    async def turn(self, lane: Lane) -> ChildProcess | None:
        """Waits for a process that is free and returns it; None where threads decode, which queue by themselves."""
        if not self._processes:
            return None
        while True:
            child = self._idle.pop() if self._idle else await self._next(lane)
            if not child.is_gone:
                return child
            await self._replace(child)  # it ended while it was idle: no image is to blame

    async def decode(self, child: ChildProcess | None, image: Decode) -> None:
        """Writes the pixels to their place and gives the process back.

        Fails with an ItemError when the image cannot be decoded, and with DecoderLost when the process ended over it.
        """
        if child is None:
            loop = asyncio.get_running_loop()
            pixels = await loop.run_in_executor(self._threads, decode, image.data, image.header, image.spec)
            self._memory.pixels(image.place)[:] = pixels
            return
        try:
            async with asyncio.timeout(self._seconds):
                await child.front.send(image)
                answer = await child.front.receive()
        except (EOFError, OSError, TimeoutError):
            await self._replace(child)
            raise DecoderLost from None
        except BaseException:  # the caller is gone, and this answer would be taken for the next caller's
            await self._replace(child)
            raise
        self._give(child)
        if isinstance(answer, Failure):
            raise answer.error()
        assert isinstance(answer, Decoded)

    async def close(self) -> None:
        for task in self._replacing:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(*(child.end() for child in self.children))

    async def _next(self, lane: Lane) -> ChildProcess:
        waiting: asyncio.Future[ChildProcess] = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self._give(waiting.result())
            raise

    def _give(self, child: ChildProcess) -> None:
        for lane in (Lane.INTERACTIVE, Lane.BULK):
            while self._waiting[lane]:
                waiting = self._waiting[lane].popleft()
                if not waiting.done():
                    waiting.set_result(child)
                    return
        self._idle.append(child)

    async def _spawn(self) -> None:
        child = await ChildProcess.start((sys.executable, "-m", DECODER), self._memory.fd)
        self.children.add(child)
        self._give(child)

    async def _replace(self, child: ChildProcess) -> None:
        """Starts another process. Returns when the old one is gone, for until then it may still write pixels."""
        log.error("an image decoder was lost and is being replaced")
        self.children.discard(child)
        child.kill()
        await child.end()
        task = asyncio.create_task(self._respawn(), name="decoder")
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _respawn(self) -> None:
        while True:
            try:
                return await self._spawn()
            except OSError as error:  # the machine has no file descriptor or no process to spare
                log.error("an image decoder did not start; it is tried again", extra={"error": type(error).__name__})
            await asyncio.sleep(SPAWN_AGAIN_SECONDS)
