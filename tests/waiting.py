"""Waiting for something to come true, instead of for a time."""

import asyncio
from collections.abc import Callable


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    for _ in range(int(seconds * 100)):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")
