"""In front of every route of the HTTP doors: host name, key, quota. What is not named here takes a key."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Asgi

from medreward.api.access.hosts import Hosts, address_of, is_loopback
from medreward.api.access.keyring import Caller, Keyring
from medreward.api.access.keys import Scope
from medreward.api.observing import entry_of
from medreward.api.rest.status import problem
from medreward.errors import RequestError
from medreward.settings import Settings
from medreward.types import Lane

HEALTH: Final = frozenset({"/livez", "/readyz"})  # probes come by address and have no key


@dataclass(frozen=True)
class Rules:
    """Paths are those by which the router finds a route, never those of the request line."""

    hosts: Hosts
    scope: Scope
    others: Mapping[str, tuple[Scope, ...]] = field(default_factory=dict)
    without_key: frozenset[str] = frozenset()


def rest_rules(settings: Settings) -> Rules:
    only_loopback = is_loopback(address_of(settings.host)) and not settings.keys_file
    return Rules(Hosts(settings.allowed_hosts, only_loopback), Scope.SCORE)


def admin_rules(settings: Settings) -> Rules:
    only_loopback = is_loopback(address_of(settings.admin_host))
    metrics = frozenset({"/metrics"})
    return Rules(
        Hosts(settings.allowed_hosts, only_loopback),
        Scope.ADMIN,
        dict.fromkeys(metrics, (Scope.METRICS, Scope.ADMIN)),
        without_key=metrics if only_loopback else frozenset(),
    )


class Gate:
    def __init__(self, app: ASGIApp, keys: Keyring, rules: Rules) -> None:
        self._app = app
        self._keys = keys
        self._rules = rules

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        if scope["path"] in HEALTH:
            await self._app(scope, receive, send)
            return
        entry = entry_of(scope)
        entry.lane = _lane(scope)
        answer = self._app
        with ExitStack() as until_answered:
            try:
                self._rules.hosts.check(_headers(scope, b"host"))
                if scope["path"] not in self._rules.without_key:
                    until_answered.enter_context(self._caller(scope).request())
            except RequestError as error:
                answer = problem(error, entry)
            await answer(scope, receive, send)

    def _caller(self, scope: Asgi) -> Caller:
        caller = self._keys.identify(_headers(scope, b"authorization"))
        entry_of(scope).caller = caller
        caller.check_scope(*self._rules.others.get(scope["path"], (self._rules.scope,)))
        return caller


def _headers(scope: Asgi, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _lane(scope: Asgi) -> Lane:
    """The one asked for, for a refusal's status; the route itself refuses a lane that is none."""
    written = _headers(scope, b"x-lane")
    return Lane(written[0]) if written and written[0] in set(Lane) else Lane.BULK
