"""What surrounds each gRPC call: the check of its key, its id, log line and count, and errors to status codes."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import grpc

from medreward.api.access.keyring import ANYONE, Caller, Keyring
from medreward.api.access.keys import Scope
from medreward.api.observing import OUR_FAULT, UNMATCHED, Entry, observe, request_id
from medreward.api.rpc.requests import metadata_of
from medreward.api.rpc.status import GRPC_STATUS, Context, abort
from medreward.errors import MedRewardError, RequestError
from medreward.metrics import Metrics
from medreward.settings import RequestIds, Settings

if TYPE_CHECKING:
    from medreward.tracing.spans import Tracing

log = logging.getLogger(__name__)

HEALTH_METHODS: Final = "/grpc.health.v1.Health/"  # probes have no key
CALLER: Final[ContextVar[Caller]] = ContextVar("caller")  # set by AccessCheck, and by nobody else


def new_entry(context: Context, rule: RequestIds, caller: Caller = ANYONE, tracing: "Tracing | None" = None) -> Entry:
    """Returns the entry of a call that begins. gRPC names its peer as ipv4:127.0.0.1:5000 or ipv6:%5B::1%5D:5000."""
    address = unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")
    metadata = metadata_of(context)
    entry = Entry(*request_id(metadata.get("x-request-id"), rule), address, caller)
    entry.trace = tracing.rpc(metadata) if tracing else None
    return entry


class AccessCheck(grpc.aio.ServerInterceptor):
    """Refuses a call before its message is read when its key does not open the method; health needs no key."""

    def __init__(self, keys: Keyring, metrics: Metrics, rule: RequestIds, tracing: "Tracing | None" = None) -> None:
        self._keys = keys
        self._tracing = tracing
        self._metrics = metrics
        self._rule = rule

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if method.startswith(HEALTH_METHODS):
            return handler
        metadata: Sequence[tuple[str, str]] = handler_call_details.invocation_metadata
        try:
            caller = self._keys.identify([value for key, value in metadata if key == "authorization"])
            caller.check_scope(Scope.SCORE)
        except RequestError as error:
            return self._refusing(error, method if handler else UNMATCHED)
        CALLER.set(caller)
        return handler

    def _refusing(self, error: RequestError, route: str) -> Any:
        """Returns a handler that refuses every call. As one of streams it waits for no message."""

        async def refuse(_: object, context: Context) -> None:
            entry = new_entry(context, self._rule, tracing=self._tracing)
            try:
                await abort(context, entry, error)
            finally:
                observe(self._metrics, route, GRPC_STATUS[error.code].name, 0.0, entry)

        return grpc.stream_stream_rpc_method_handler(refuse)


class Observe:
    """Around the handler of each call of the service: its errors become status codes, and it is counted and logged."""

    def __init__(self, metrics: Metrics, settings: Settings, tracing: "Tracing | None" = None) -> None:
        self._tracing = tracing
        self._metrics = metrics
        self._rule = settings.request_ids
        self._calls = 0  # under way
        metrics.grpc_calls.watch(lambda: self._calls, settings.grpc_calls)

    @asynccontextmanager
    async def call(self, route: str, context: Context, is_stream: bool = False) -> AsyncIterator[Entry]:
        """Gives the call's entry. A stream's messages count as requests of its key, not the stream itself."""
        started = time.perf_counter()
        entry = new_entry(context, self._rule, CALLER.get(), self._tracing)
        status = grpc.StatusCode.OK
        self._calls += 1
        try:
            with nullcontext() if is_stream else entry.caller.request():
                yield entry
        except MedRewardError as error:
            status = GRPC_STATUS[error.code]
            await abort(context, entry, error)
        except Exception:
            log.exception("the server failed on this request", extra={"request_id": entry.request_id})
            status = GRPC_STATUS[OUR_FAULT.code]
            await abort(context, entry, OUR_FAULT)
        except asyncio.CancelledError:
            status = grpc.StatusCode.CANCELLED
            raise
        finally:
            self._calls -= 1
            observe(self._metrics, route, status.name, time.perf_counter() - started, entry)
