"""Callers: which key a request has, what the key allows, and how much of it."""

import asyncio
import hmac
import logging
import math
import os
import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from medreward.api.access.keys import FORMAT, Key, Scope, digest, read_keys
from medreward.errors import Code, ConfigurationError, RequestError
from medreward.types import Lane

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 0.5
BEARER: Final = re.compile(r"bearer +(\S+)", re.IGNORECASE)
BASIC: Final = re.compile(r"basic +([A-Za-z0-9+/]{1,512}={0,2})", re.IGNORECASE)
QUOTAS: Final = ("requests_per_second", "triples_per_second", "in_flight")
NOBODY: Final = Key(id="0" * 16, salt="0" * 32, hash="0" * 64, name="", tenant="nobody")

Clock = Callable[[], float]


class Bucket:
    """What is left of a quota. A request that finds it full may take more than that, so none is too large for ever."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._level = math.inf
        self._at = 0.0

    def take(self, amount: float, rate: float, burst: float) -> float:
        """Takes the amount and returns 0, or takes nothing and returns the seconds until it can be taken."""
        now = self._clock()
        self._level = min(burst, self._level + (now - self._at) * rate)
        self._at = now
        missing = min(amount, burst) - self._level
        if missing > 0:
            return missing / rate
        self._level -= amount
        return 0.0


class Caller:
    """A key in use, or anyone where no keys are needed. What is left of its quotas outlives a change of the file."""

    def __init__(self, key: Key | None, clock: Clock = time.monotonic) -> None:
        self.key = key
        self.revoked = False
        self._in_flight = 0
        self._requests = Bucket(clock)
        self._triples = Bucket(clock)

    @property
    def id(self) -> str:
        return self.key.id if self.key else ""

    @property
    def tenant(self) -> str:
        return self.key.tenant if self.key else ""

    @property
    def is_valid(self) -> bool:
        expires = self.key.expires if self.key else None
        return not self.revoked and not (expires and expires <= datetime.now(UTC))

    def limits(self) -> dict[str, float]:
        """Returns this key's quotas, by name, without those it does not have."""
        quotas = {name: getattr(self.key, name, None) for name in QUOTAS}
        return {name: quota for name, quota in quotas.items() if quota is not None}

    def check_scope(self, *enough: Scope) -> None:
        """Refuses a key that has none of these scopes; one of them is enough."""
        if self.key and not set(enough) & set(self.key.scopes):
            raise RequestError(Code.FORBIDDEN, f"this key lacks the scope {' or '.join(enough)}")

    def check_lane(self, lane: Lane) -> None:
        """Refuses a lane that this key may not use."""
        if self.key and lane not in self.key.lanes:
            raise RequestError(Code.FORBIDDEN, f"this key may not use the {lane} lane", "X-Lane")

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts a request while it runs. Refuses it over a quota of the key, and where the key has ended since it was
        identified, as it may in a long stream."""
        key = self.key
        if not self.is_valid:
            raise _unauthenticated("the key was revoked or has expired meanwhile")
        if key and key.in_flight and self._in_flight >= key.in_flight:
            raise _over_quota(f"this key may have {key.in_flight} requests in flight", 1)
        if key and key.requests_per_second:
            rate = key.requests_per_second
            if wait := self._requests.take(1, rate, max(1, rate * key.burst_seconds)):
                raise _over_quota(f"this key may send {rate:g} requests a second", wait)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def charge(self, triples: int) -> None:
        """Takes the request's triples from their quota; refused where it has too little left."""
        if self.key and self.key.triples_per_second:
            rate = self.key.triples_per_second
            if wait := self._triples.take(triples, rate, max(1, rate * self.key.burst_seconds)):
                raise _over_quota(f"this key may send {rate:g} triples a second", wait)


def _key_in(authorization: str) -> str:
    """Returns the key of a Bearer header or the password of a Basic one, whose user name may be anything. Empty where
    there is none."""
    if bearer := BEARER.fullmatch(authorization):
        return bearer[1]
    basic = BASIC.fullmatch(authorization)
    try:
        return b64decode(basic[1]).decode().partition(":")[2] if basic else ""
    except ValueError:  # wrong padding, or no UTF-8
        return ""


def _unauthenticated(why: str) -> RequestError:
    """`why` goes into the log alone, so that strangers do not learn how near a guess was."""
    detail = "this server needs a valid API key: send Authorization: Bearer mr_…, or the key as the password of Basic"
    return RequestError(Code.UNAUTHENTICATED, detail, for_log=why)


def _over_quota(detail: str, wait: float) -> RequestError:
    return RequestError(Code.QUOTA_EXCEEDED, detail, retry_after=max(1, math.ceil(wait)))


ANYONE: Final = Caller(None)


class Keyring:
    """The callers whose keys are in a file, read again when it changes; without one anyone may do anything."""

    def __init__(self, file: Path | None, clock: Clock = time.monotonic) -> None:
        self.file = file
        self._clock = clock
        self._callers: dict[str, Caller] = {}
        self._read: object = None  # stamp of the file as it was read last, and as it was seen last
        self._seen: object = None
        if file:
            self._read = self._seen = stamp(file)
            self._take(read_keys(file))

    def identify(self, authorization: Sequence[str]) -> Caller:
        """Returns the caller of a request with these Authorization headers. Refuses all but one valid key; an unknown
        id takes the same time as a known one."""
        if not self.file:
            return ANYONE
        parts = FORMAT.fullmatch(_key_in(authorization[0])) if len(authorization) == 1 else None
        id_, secret = parts.groups() if parts else ("", "")
        caller = self._callers.get(id_)
        key = caller.key if caller and caller.key else NOBODY
        is_right = hmac.compare_digest(digest(key.salt, secret), key.hash)
        if not parts:
            raise _unauthenticated(_malformed(authorization))
        if not caller:
            raise _unauthenticated(f"the key {id_} is unknown, or was revoked")
        if not is_right:
            raise _unauthenticated(f"the secret of the key {id_} is wrong")
        if not caller.is_valid:
            raise _unauthenticated(f"the key {id_} has expired")
        return caller

    async def watch(self) -> None:
        """Looks at the file until cancelled. It runs in the event loop: a stat takes a microsecond, and all threads may
        be busy with images."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self.file:
                try:
                    self._refresh(self.file)
                except Exception:
                    log.exception("the keys file could not be looked at; the old keys stay")

    def _refresh(self, file: Path) -> None:
        """Takes the file's keys if it has changed and stands still. One that cannot be read changes nothing."""
        before, self._seen = self._seen, stamp(file)
        if self._seen == self._read or self._seen != before:  # somebody may still be writing: it must stand still
            return
        self._read = self._seen  # taken before reading: what is written meanwhile is seen the next time
        try:
            keys = read_keys(file)
        except ConfigurationError as error:
            log.error("the keys file is refused; the old keys stay", extra={"reason": str(error)})
            return
        self._take(keys)
        log.info("keys read again", extra={"keys": len(keys)})

    def _take(self, keys: Sequence[Key]) -> None:
        callers = {key.id: self._callers.get(key.id) or Caller(key, self._clock) for key in keys}
        for key in keys:
            callers[key.id].key = key
        for id_ in self._callers.keys() - callers.keys():
            self._callers[id_].revoked = True
        self._callers = callers


def _malformed(authorization: Sequence[str]) -> str:
    if not authorization:
        return "no Authorization header was sent"
    if len(authorization) > 1:
        return "more than one Authorization header was sent"
    return "the Authorization header holds no key of the form mr_<id>_<secret>, as Bearer or as a Basic password"


def stamp(file: Path) -> object:
    """Returns something that differs when the file is another one, was written to, or is not there."""
    try:
        about = file.stat()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
