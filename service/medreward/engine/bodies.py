"""Counts the bytes of all requests that are in memory, whichever door they came through."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from medreward.errors import Code, RequestError

RETRY_SECONDS: Final = 1.0


class Bodies:
    """The room for the bytes of all requests together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def reserve(self, size: int = 0) -> Iterator["Reservation"]:
        """Reserves room for one request, which may grow while its body arrives. The room is free again when the
        request is over, for its images live in its body until they are decoded."""
        reservation = Reservation(self)
        try:
            reservation.grow(size)
            yield reservation
        finally:
            self.held -= reservation.size


class Reservation:
    """What one request holds of the room for all."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.size = 0

    def grow(self, more: int) -> None:
        """Holds so many bytes more; refused where there is no room for them."""
        self.check(more)
        self._bodies.held += more
        self.size += more

    def check(self, more: int) -> None:
        """Refuses the request if there is no room for so many bytes more."""
        if self._bodies.held + more > self._bodies.limit:
            raise RequestError(
                Code.OVERLOADED, "too many bytes of requests are in memory; try again later", retry_after=RETRY_SECONDS
            )
