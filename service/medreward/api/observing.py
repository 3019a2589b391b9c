"""What is noted of a request, alike at both doors: its id, one log line, one count and one duration."""

import logging
import re
import secrets
import uuid
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from medreward.api.access.keyring import ANYONE, Caller
from medreward.errors import Code, ItemError, MedRewardError, RequestError
from medreward.metrics import Metrics
from medreward.settings import RequestIds
from medreward.types import Lane, Scored, ScoreResponse, Trace

if TYPE_CHECKING:
    from medreward.tracing.spans import RequestTrace

log = logging.getLogger("medreward.access")

PLAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
UUID_LIKE: Final = re.compile(r"[0-9A-Fa-f]{8}-?(?:[0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}")
UNMATCHED: Final = "unmatched"  # stands for the route where the request has none
HASH_KEY: Final = secrets.token_bytes(32)  # of this process: nobody finds an id by hashing all patients' numbers

#: The refusal that answers an exception nobody expected.
OUR_FAULT: Final = RequestError(
    Code.INTERNAL, "the server failed on this request; its log says why under the request's id"
)


def request_id(given: str | None, rule: RequestIds) -> tuple[str, bool]:
    """Returns the id that is logged and answered, and whether it replaces one that the caller sent."""
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
    is_oip: bool = False  # the Open Inference Protocol has a shape of its own for errors
    refusal: MedRewardError | None = None
    fingerprint: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    trace: "RequestTrace | None" = None

    @property
    def recorded(self) -> Trace | None:
        """The trace in which the engine notes what it does; None where that would go nowhere."""
        return self.trace if self.trace and self.trace.is_recorded else None

    @property
    def trace_id(self) -> str:
        """The id of the trace that shows this request; empty where none does."""
        return self.trace.id if self.trace else ""

    def add(self, response: ScoreResponse) -> None:
        """Counts the response's results. A gRPC stream has many responses in one entry."""
        self.fingerprint = response.model.fingerprint
        for result in response.results:
            self.outcomes["ok" if isinstance(result, Scored) else result.error.code] += 1
            self.flags.update(result.flags)
        if self.trace:
            self.trace.scored(response)

    def id_headers(self) -> dict[str, str]:
        """Returns the headers (in gRPC: the trailing metadata) with which every answer says its request's id."""
        replaced = {"x-request-id-replaced": "true"} if self.id_replaced else {}
        return {"x-request-id": self.request_id, **replaced}

    def fields(self) -> dict[str, object]:
        """Returns the fields of the log line: names, numbers and our own words, nothing of the payload."""
        fields: dict[str, object] = {"request_id": self.request_id, "client": self.client, "lane": self.lane}
        if self.id_replaced:
            fields["request_id_replaced"] = True
        if self.trace_id:
            fields["trace_id"] = self.trace_id
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

    def attributes(self) -> dict[str, str | int]:
        """Returns the attributes that its span has beside those of the door: names and numbers alone."""
        attributes: dict[str, str | int] = {"medreward.lane": self.lane}
        if self.outcomes:
            attributes |= {
                "medreward.model.fingerprint": self.fingerprint,
                "medreward.responses": self.outcomes.total(),
                "medreward.unscored": self.outcomes.total() - self.outcomes["ok"],
            }
        return attributes


def observe(metrics: Metrics, route: str, code: str, seconds: float, entry: Entry) -> None:
    """Counts and logs a request that has been answered; `code` is the HTTP status or the name of gRPC's."""
    metrics.requests.labels(route, entry.lane, code).inc()
    metrics.request_duration.labels(route, entry.lane).observe(seconds)
    if entry.refusal and not isinstance(entry.refusal, ItemError):  # those are in medreward_items_total
        metrics.refused.labels(route, entry.refusal.code).inc()
    if entry.trace:
        entry.trace.answered(route, code, entry.refusal.code if entry.refusal else "", entry.attributes())
    if log.isEnabledFor(logging.INFO):
        fields = {"route": route, "code": code, "ms": round(seconds * 1000, 3)}
        log.info("request", extra=entry.fields() | fields)
