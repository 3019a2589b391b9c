"""Stops the work for a client that has closed its connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from medreward.errors import Code, RequestError


@asynccontextmanager
async def cancelled_if_left(request: Request) -> AsyncIterator[None]:
    """Cancels what runs within it when the client leaves, and raises the refusal CLIENT_LEFT. The body must have been
    read, for the watcher takes all further messages of the connection."""
    work = asyncio.current_task()
    assert work is not None
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        has_left = True
        work.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not has_left:
            raise
        work.uncancel()
        raise RequestError(Code.CLIENT_LEFT, "the client closed the connection") from None
    finally:
        watcher.cancel()
