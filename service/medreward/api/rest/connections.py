"""Limits of connections and of the headers they send: of size, number and time."""

import asyncio
import uuid
from functools import partial
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from medreward.api.observing import Entry
from medreward.api.rest.status import problem
from medreward.errors import Code, RequestError
from medreward.settings import Settings

NOT_HTTP: Final = RequestError(Code.MALFORMED, "the request is not valid HTTP")


class BoundedConnection(HttpToolsProtocol):
    """Uvicorn's connection, with limits. It is closed when it waits too long for a request, or longest of too many;
    headers that are too large or too many are refused."""

    def __init__(
        self, settings: Settings, waiting: dict["BoundedConnection", asyncio.TimerHandle], **uvicorns: Any
    ) -> None:
        super().__init__(**uvicorns)
        self._settings = settings
        self._waiting = waiting  # the connections that wait for a request; the one that waits longest comes first
        self._between = False  # whether a request has come whole, and nothing of the next
        self._unparsed = 0  # bytes that came since the parser last made something of them
        self._size = 0  # of the headers so far
        self._refusal = NOT_HTTP

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self._waiting) > self._settings.connections:
            next(iter(self._waiting)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.timeout_keep_alive_task and not self.transport.is_closing():  # none where the next is being answered
            self._wait()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._unparsed = 0
        super().on_headers_complete()

    def _wait(self) -> None:
        self._stop_waiting()
        seconds = self._settings.keep_alive_seconds if self._between else self._settings.header_seconds
        self._waiting[self] = self.loop.call_later(seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if timer := self._waiting.pop(self, None):
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > self._settings.header_bytes and not self.transport.is_closing():
            self._refusal = self._too_large()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        self._unparsed = self._size = 0
        if self._between:
            self._between = False
            if self in self._waiting:
                self._wait()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._between = True
        super().on_message_complete()

    def _count(self, size: int) -> None:
        self._unparsed = 0
        self._size += size
        if self._size > self._settings.header_bytes or len(self.headers) > self._settings.headers:
            self._refusal = self._too_large()
            raise self._refusal  # the parser stops, and its error comes back as a refusal

    def _too_large(self) -> RequestError:
        limits = self._settings
        detail = f"the request has more than {limits.headers} headers, or more than {limits.header_bytes} bytes of them"
        return RequestError(Code.HEADERS_TOO_LARGE, detail)

    def send_400_response(self, msg: str) -> None:
        entry = Entry(uuid.uuid4().hex, id_replaced=False, client="")
        reply = problem(self._refusal, entry)
        reply.headers.update({**entry.id_headers(), "connection": "close"})
        head = b"".join(name + b": " + value + b"\r\n" for name, value in reply.raw_headers)
        self.transport.write(STATUS_LINE[reply.status_code] + head + b"\r\n" + bytes(reply.body))
        self.transport.close()


def bounded_connections(settings: Settings) -> Any:
    """Returns what uvicorn calls for each connection of one door: all of them share the list of those that wait."""
    return partial(BoundedConnection, settings, {})
