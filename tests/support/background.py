"""Runs what lives in an event loop beside a test that has none, such as one that waits for a browser."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def in_background(inside: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Gives what the manager gives, which is entered and left in a loop of a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        given = asyncio.run_coroutine_threadsafe(inside.__aenter__(), loop).result(120)
        try:
            yield given
        finally:
            asyncio.run_coroutine_threadsafe(inside.__aexit__(None, None, None), loop).result(120)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
