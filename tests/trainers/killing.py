"""Kills a server's worker while a trainer waits for its rewards."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import httpx

from commands import Served

T = TypeVar("T")


def with_worker_killed(served: Served, ask: Callable[[], T]) -> T:
    """What `ask` returns or raises, while whose call the worker is killed."""
    asked, killed = threading.Event(), threading.Event()

    def kill() -> None:
        while not asked.is_set():
            with suppress(httpx.TransportError):
                found = httpx.get(f"{served.admin_url}/admin/state", timeout=60).json()
                if found["triples_in_flight"] and found["workers"]:
                    os.kill(int(found["workers"][0]["pid"]), signal.SIGKILL)
                    killed.set()
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        return ask()
    finally:
        asked.set()
        killer.join()
        assert killed.is_set(), "nothing was under way, so that nothing was killed"
