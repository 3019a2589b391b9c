"""A client that closed its connection waits for nothing: what was done for it stops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from medreward.errors import Code, RequestError


@asynccontextmanager
async def cancelled_if_left(request: Request) -> AsyncIterator[None]:
    """Around the work for a request whose body has been read."""
    work = asyncio.current_task()
    assert work is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        work.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not left:
            raise
        work.uncancel()
        raise RequestError(Code.CLIENT_LEFT, "the client closed the connection") from None
    finally:
        watcher.cancel()
