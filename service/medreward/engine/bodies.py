"""The bytes of all requests that are in memory, whichever door they came through."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from medreward.errors import Code, RequestError

RETRY_SECONDS: Final = 1.0


class Bodies:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """One request's part; free again when the request is over, for its images live in its body until decoded."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held -= share.size

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """The same for a request that came whole."""
        with self.share() as share:
            share.grow(size)
            yield


class Share:
    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.size = 0

    def grow(self, more: int) -> None:
        self.refuse(more)
        self._bodies.held += more
        self.size += more

    def refuse(self, more: int) -> None:
        """If there is no room for so many bytes more."""
        if self._bodies.held + more > self._bodies.limit:
            raise RequestError(
                Code.OVERLOADED, "too many bytes of requests are in memory; try again later", retry_after=RETRY_SECONDS
            )
