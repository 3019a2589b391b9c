"""What surrounds each request of the HTTP doors: id, log and count; host name, key and quota; errors to problems."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Asgi

from medreward.api.access.hosts import Hosts, address_of, is_loopback
from medreward.api.access.keyring import Keyring
from medreward.api.access.keys import Scope
from medreward.api.observing import OUR_FAULT, UNMATCHED, Entry, observe, request_id
from medreward.api.page.files import OPEN_PATHS
from medreward.api.rest.status import problem
from medreward.engine.engine import Engine
from medreward.errors import Code, MedRewardError, RequestError
from medreward.metrics import Metrics
from medreward.settings import RequestIds, Settings
from medreward.types import Lane

if TYPE_CHECKING:
    from medreward.tracing.spans import Tracing

HEALTH: Final = frozenset({"/livez", "/readyz"})  # probes come by address and have no key
#: FastAPI's own spans name the path and the query of a request, and its log events quote exceptions.
NO_TELEMETRY: Final = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
#: What asks for these asks every few seconds, and nobody looks for it in a trace.
UNTRACED: Final = HEALTH | {"/metrics", "/v2/health/live", "/v2/health/ready"}
#: Where a key may stand; the second is ROLL's.
KEY_HEADERS: Final = ("authorization", "xrl-authorization")


@dataclass(frozen=True)
class AccessRules:
    """Which host names a door answers to, and which scope of a key opens which path: `scope` where nothing else is
    named. Paths are those by which the router finds a route, never those of the request line. One that ends with /
    stands for all paths below it."""

    hosts: Hosts
    scope: Scope
    others: Mapping[str, tuple[Scope, ...]] = field(default_factory=dict)
    without_key: frozenset[str] = frozenset()

    def scopes(self, path: str) -> tuple[Scope, ...]:
        """Returns the scopes of which a key needs one for this path."""
        for other, scopes in self.others.items():
            if path == other or (other.endswith("/") and path.startswith(other)):
                return scopes
        return (self.scope,)


def rest_rules(settings: Settings) -> AccessRules:
    only_loopback = is_loopback(address_of(settings.host)) and not settings.keys_file
    others = {"/v1/decisions/": (Scope.OVERRIDE,), "/page/now": (Scope.METRICS, Scope.ADMIN)}
    return AccessRules(Hosts(settings.allowed_hosts, only_loopback), Scope.SCORE, others, without_key=OPEN_PATHS)


def admin_rules(settings: Settings) -> AccessRules:
    only_loopback = is_loopback(address_of(settings.admin_host))
    metrics = frozenset({"/metrics"})
    return AccessRules(
        Hosts(settings.allowed_hosts, only_loopback),
        Scope.ADMIN,
        dict.fromkeys(metrics, (Scope.METRICS, Scope.ADMIN)),
        without_key=metrics if only_loopback else frozenset(),
    )


def surround(
    app: FastAPI,
    routers: Iterable[APIRouter],
    engine: Engine,
    keys: Keyring,
    rules: AccessRules,
    tracing: "Tracing | None" = None,
) -> None:
    """Puts all of this module around the routes of the app; the routers hold those that the app itself does not
    list."""
    app.add_middleware(AccessCheck, keys=keys, rules=rules)
    routes = [*app.routes, *(route for router in routers for route in router.routes)]
    app.add_middleware(
        Observe, metrics=engine.metrics, rule=engine.settings.request_ids, routes=routes, tracing=tracing
    )
    app.add_exception_handler(MedRewardError, answer_refusal)
    app.add_exception_handler(HTTPException, answer_unrouted)
    app.add_exception_handler(Exception, answer_fault)


def entry_of(scope: Any) -> Entry:
    """Returns the entry of a request that has come through `Observe`."""
    entry: Entry = scope["entry"]
    return entry


def engine_of(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


class Observe:
    """Gives each request its entry and its id, and counts and logs it when it has been answered."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, rule: RequestIds, routes: Sequence[BaseRoute], tracing: "Tracing | None"
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._rule = rule
        self._routes = routes  # they name a request that was refused before the router saw it
        self._tracing = tracing

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = Headers(scope=scope)
        id_, replaced = request_id(headers.get("x-request-id"), self._rule)
        peer = scope.get("client")
        is_oip = scope["path"].startswith("/v2/")
        entry = scope["entry"] = Entry(id_, replaced, peer[0] if peer else "", is_oip=is_oip)
        if self._tracing and scope["path"] not in UNTRACED:
            entry.trace = self._tracing.http(scope["method"], scope["scheme"], headers)
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(entry.id_headers())
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            observe(self._metrics, self._route(scope), str(status), time.perf_counter() - started, entry)

    def _route(self, scope: Asgi) -> str:
        """Returns the route's own path, never the one that the client wrote, or UNMATCHED."""
        if route := scope.get("route"):
            return str(getattr(route, "path", UNMATCHED))
        for route in self._routes:
            if isinstance(route, Route | Mount) and route.matches(scope)[0] is not Match.NONE:
                return route.path
        return UNMATCHED


class AccessCheck:
    """Refuses a request before its body is read: by its host name, its key, the key's scope or the key's quota.
    A path that the rules do not name needs a key too."""

    def __init__(self, app: ASGIApp, keys: Keyring, rules: AccessRules) -> None:
        self._app = app
        self._keys = keys
        self._rules = rules

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in HEALTH:
            await self._app(scope, receive, send)
            return
        headers, entry, rules = Headers(scope=scope), entry_of(scope), self._rules
        lane = headers.get("x-lane")
        entry.lane = Lane(lane) if lane in set(Lane) else Lane.BULK  # its route refuses a lane that does not exist
        answer = self._app
        with ExitStack() as until_answered:
            try:
                rules.hosts.check(headers.getlist("host"))
                if path not in rules.without_key:
                    entry.caller = self._keys.identify(_sent_keys(headers))
                    entry.caller.check_scope(*rules.scopes(path))
                    until_answered.enter_context(entry.caller.request())
            except RequestError as error:
                answer = problem(error, entry)
            await answer(scope, receive, send)


def _sent_keys(headers: Headers) -> list[str]:
    """Returns the Authorization headers; where there is none, what LiteLLM sends in place of one."""
    keys = [key for name in KEY_HEADERS for key in headers.getlist(name)]
    return keys or [f"Bearer {key}" for key in headers.getlist("x-api-key")]


async def answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, MedRewardError)
    return problem(error, entry_of(request.scope))


async def answer_unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        detail = "this route does not take this method: the header Allow names those that it takes"
        refusal = RequestError(Code.METHOD_NOT_ALLOWED, detail)
    else:
        refusal = RequestError(Code.NOT_FOUND, "there is no such route: /docs lists those there are")
    response = problem(refusal, entry_of(request.scope))
    response.headers.update(error.headers or {})  # Allow
    return response


async def answer_fault(request: Request, error: Exception) -> Response:
    entry = entry_of(request.scope)
    response = problem(OUR_FAULT, entry)
    response.headers.update(entry.id_headers())  # this handler stands outside Observe
    return response
