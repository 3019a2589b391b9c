"""Around every request: its id, one log line, one count, one duration."""

import logging
import re
import secrets
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medreward.api.access.keyring import ANYONE, Caller
from medreward.errors import ItemError, MedRewardError
from medreward.metrics import Metrics
from medreward.settings import RequestIds
from medreward.types import Lane, Scored, ScoreResponse

log = logging.getLogger("medreward.access")

PLAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
UUID_LIKE: Final = re.compile(r"[0-9A-Fa-f]{8}-?(?:[0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}")
UNMATCHED: Final = "unmatched"
HASH_KEY: Final = secrets.token_bytes(32)  # of this process: nobody finds an id by hashing all patients' numbers


def request_id(given: str | None, rule: RequestIds) -> tuple[str, bool]:
    """The id that is logged and answered, and whether it replaces one that the caller sent."""
    if not given:
        return uuid.uuid4().hex, False
    if UUID_LIKE.fullmatch(given) or (rule == "keep" and PLAIN.fullmatch(given)):
        return given, False
    if rule == "hash":
        return blake2b(given.encode(), key=HASH_KEY, digest_size=16).hexdigest(), True
    return uuid.uuid4().hex, True


@dataclass(slots=True)
class Entry:
    """What the access log and the metrics say of one request; its handler fills it in on the way."""

    request_id: str
    id_replaced: bool
    client: str  # address of the peer
    caller: Caller = ANYONE
    lane: Lane = Lane.BULK
    refusal: MedRewardError | None = None
    fingerprint: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)

    def add(self, response: ScoreResponse) -> None:
        """Counts its results. A stream has many responses in one entry."""
        self.fingerprint = response.model.fingerprint
        for result in response.results:
            self.outcomes["ok" if isinstance(result, Scored) else result.error.code] += 1
            self.flags.update(result.flags)

    def fields(self) -> dict[str, object]:
        """For the log: names, numbers and words of ours, nothing of the payload."""
        fields: dict[str, object] = {"request_id": self.request_id, "client": self.client, "lane": self.lane}
        if self.id_replaced:
            fields["request_id_replaced"] = True
        if self.caller.id:
            fields |= {"key": self.caller.id, "tenant": self.caller.tenant}
        if self.outcomes:
            fields |= {
                "fingerprint": self.fingerprint,
                "responses": self.outcomes.total(),
                "outcomes": dict(self.outcomes),
                "flags": dict(self.flags),
            }
        if self.refusal:
            fields |= {"reason": self.refusal.code, "detail": self.refusal.for_log}
        return fields


def entry_of(scope: Any) -> Entry:
    """The entry of a request that has come through `Observe`."""
    entry: Entry = scope["entry"]
    return entry


class Observe:
    """`routes` are the app's: they name a request that was refused before the router saw it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, rule: RequestIds, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._metrics = metrics
        self._rule = rule
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = next((value for key, value in scope["headers"] if key == b"x-request-id"), b"")
        id_, replaced = request_id(given.decode("latin-1"), self._rule)
        peer = scope.get("client")
        entry = scope["entry"] = Entry(id_, replaced, peer[0] if peer else "")
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += headers_of(entry)
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            observe(self._metrics, self._route(scope), str(status), time.perf_counter() - started, entry)

    def _route(self, scope: Scope) -> str:
        """The route's own path, never the one the client wrote."""
        found = scope.get("route") or next((route for route in self._routes if _leads_to(route, scope)), None)
        return str(getattr(found, "path", UNMATCHED))


def _leads_to(route: BaseRoute, scope: Scope) -> bool:
    return isinstance(route, Route | Mount) and route.matches(scope)[0] is not Match.NONE


def headers_of(entry: Entry) -> list[tuple[bytes, bytes]]:
    """What every HTTP answer says of its request's id."""
    replaced = [(b"x-request-id-replaced", b"true")] if entry.id_replaced else []
    return [(b"x-request-id", entry.request_id.encode()), *replaced]


def observe(metrics: Metrics, route: str, code: str, seconds: float, entry: Entry) -> None:
    metrics.requests.labels(route, entry.lane, code).inc()
    metrics.request_duration.labels(route, entry.lane).observe(seconds)
    if entry.refusal and not isinstance(entry.refusal, ItemError):  # those are in medreward_items_total
        metrics.refused.labels(route, entry.refusal.code).inc()
    if log.isEnabledFor(logging.INFO):
        fields = {"route": route, "code": code, "ms": round(seconds * 1000, 3)}
        log.info("request", extra=entry.fields() | fields)
