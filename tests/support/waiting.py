"""Waiting for something to come true, instead of for a time."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(true: Callable[[], bool | Awaitable[bool]], seconds: float = 300.0) -> None:
    for _ in range(int(seconds * 100)):
        now = true()
        if now if isinstance(now, bool) else await now:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")
