"""The servers that a client asks: one, or several among which it divides its calls by their images."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from medreward.clients.errors import Refused, Unreachable, VersionChanged, is_server_away
from medreward.clients.routing import Place, Routing, Trip
from medreward.clients.transport import Tls, Transport
from medreward.errors import Code

OVERDUE_S: Final = 1.0  # that a call waits at the least, before another server is asked because the first is slow
LOOK_S: Final = 0.25  # between two looks at how long a call has waited

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True, eq=False, kw_only=True)
class Server(Place):
    """One server, and the images that it is known to have stored."""

    transport: Transport
    stored: OrderedDict[str, None] = field(default_factory=OrderedDict)
    storing: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    is_changed: bool = False  # serves another model than the client is pinned to
    is_gone: bool = False  # nothing answered at its address, the last time


class Servers:
    def __init__(self, transports: Mapping[str, Transport], clock: Callable[[], float] = time.monotonic) -> None:
        self._all = [Server(name=name, transport=transport) for name, transport in transports.items()]
        self._routing = Routing(self._all, clock, tell=log.warning)

    @property
    def several(self) -> bool:
        return len(self._all) > 1

    async def ask(self, key: str, call: Callable[[Server], Awaitable[T]]) -> T:
        """Makes one try at the server that this key belongs to, and returns what it answers.

        Raises what the call raises, and Refused where the server is so slow that another one should be asked. Another
        model than the pinned one raises Refused as long as a server may still have the pinned one, then VersionChanged.
        """
        server = self._routing.choose(key)
        trip = self._routing.begin(server)
        try:
            answer = await self._in_time(server, trip, call(server))
        except VersionChanged as changed:
            server.is_changed = True
            self._routing.leave_out(server, "it serves another model")
            if all(each.is_changed or each.is_gone for each in self._all):
                raise
            raise Refused(Code.VERSION_CHANGED, str(changed), retryable=True) from None
        except Refused as refused:
            self._note(server, refused)
            raise
        finally:
            self._routing.end(server, trip)
        server.is_changed = server.is_gone = False
        self._routing.answered(server, trip)
        return answer

    def retry_after(self, refused: Refused) -> float | None:
        """Returns the seconds to wait before the next try at the least: a server's own word, if there is only one."""
        return self._routing.seconds_until_one_takes_calls() if self.several else refused.retry_after

    @property
    def are_all_gone(self) -> bool:
        return all(server.is_gone for server in self._all)

    async def close(self) -> None:
        for server in self._all:
            await server.transport.close()

    def _note(self, server: Server, refused: Refused) -> None:
        server.is_gone = isinstance(refused, Unreachable)
        if server.is_gone:
            server.stored.clear()  # what comes back may be a new process, which has stored nothing
        if is_server_away(refused.code) or refused.code == Code.ASLEEP:
            self._routing.leave_out(server, refused.message, refused.retry_after or 0.0)

    async def _in_time(self, server: Server, trip: Trip, call: Awaitable[T]) -> T:
        """Returns the answer, and looks meanwhile whether the server is far behind the others."""
        if not self.several:
            return await call
        trying = asyncio.ensure_future(call)
        try:
            while not (await asyncio.wait({trying}, timeout=LOOK_S))[0]:
                if self._routing.is_overdue(server, trip, OVERDUE_S):
                    why = f"{server.name} gave no answer for much longer than the others take"
                    raise Refused("unreachable", why, retryable=True)
            return trying.result()
        finally:
            trying.cancel()
            await asyncio.gather(trying, return_exceptions=True)


def open_servers(
    given: str | Sequence[str] | Transport, connections: int, timeout: float, key: str | None, tls: Tls | None
) -> Servers:
    """Returns the servers of one URL, of several, or behind a transport. Raises ValueError for a URL or a key that
    cannot be, and for a server that is named twice."""
    if not isinstance(given, str | Sequence):
        return Servers({"the transport": given})
    urls = _urls(given)
    return Servers({_without_password(url): _transport(url, connections, timeout, key, tls) for url in urls})


def _urls(given: str | Sequence[str]) -> list[str]:
    """Returns the URL of each server. Raises ValueError where one is missing or named twice."""
    urls = [url.strip() for url in (given.split(",") if isinstance(given, str) else given)]
    if not urls:
        raise ValueError("no URL of a server is given")
    if len({*map(_without_password, urls)}) < len(urls):
        raise ValueError(f"the URL {given!r} names a server twice")
    return urls


def _without_password(url: str) -> str:
    scheme, _, target = url.partition("://")
    return f"{scheme}://{target.rpartition('@')[2]}"


def _transport(url: str, connections: int, timeout: float, key: str | None, tls: Tls | None) -> Transport:
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ValueError("the key has characters that no HTTP header can carry, perhaps a line break: copy it again")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    scheme, _, target = url.partition("://")
    if scheme not in ("http", "https", "grpc", "grpcs"):
        raise ValueError(f"the URL {url!r} does not begin with http://, https://, grpc:// or grpcs://")
    if not target.strip("/"):
        raise ValueError(f"the URL {url!r} names no server: write it like http://host:8000 or grpc://host:8001")
    if scheme in ("grpc", "grpcs"):
        from medreward.clients.rpc import RpcTransport

        return RpcTransport(target, timeout, headers, (tls or Tls()) if scheme == "grpcs" else None)
    from medreward.clients.rest import RestTransport

    return RestTransport(url, connections, timeout, headers, tls)
