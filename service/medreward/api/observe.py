"""Around every HTTP request: its id, one log line, one count, one duration."""

import logging
import re
import time
import uuid
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medreward.api.auth import ANYONE, Caller
from medreward.metrics import Metrics
from medreward.types import Lane

log = logging.getLogger("medreward.access")

_ID = re.compile(r"[\x21-\x7e]{1,128}")


def request_id(given: str | None) -> str:
    """The caller's id where it is printable and short, else a new one."""
    return given if given and _ID.fullmatch(given) else uuid.uuid4().hex


class Observe:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = next((value for key, value in scope["headers"] if key == b"x-request-id"), b"")
        id_ = scope["request_id"] = request_id(given.decode("latin-1"))
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", id_.encode()))
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            lane = scope.get("lane", Lane.BULK)
            seconds = time.perf_counter() - started
            observe(self._metrics, route_of(scope), lane, str(status), id_, seconds, scope.get("caller", ANYONE))


def route_of(scope: Mapping[str, object]) -> str:
    """The route's own path, never the one the client wrote."""
    return str(getattr(scope.get("route"), "path", "unmatched"))


def observe(metrics: Metrics, route: str, lane: Lane, code: str, id_: str, seconds: float, caller: Caller) -> None:
    metrics.requests.labels(route, lane, code).inc()
    metrics.request_duration.labels(route, lane).observe(seconds)
    if log.isEnabledFor(logging.INFO):
        fields = {"request_id": id_, "route": route, "lane": lane, "code": code, "ms": round(seconds * 1000, 3)}
        if caller.id:
            fields |= {"key": caller.id, "tenant": caller.tenant}
        log.info("request", extra=fields)
