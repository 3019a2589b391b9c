"""A shadow: a share of decisions is made a second time, by another policy or on another server, and counted.

It never touches an answer: what is decided twice was decided before, and nobody waits for the second time.
"""

import logging
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

import msgspec

from medreward.errors import ConfigurationError
from medreward.metrics import Metrics
from medreward.screening.deciding import Decider, Decision
from medreward.screening.policy import PolicyFile

if TYPE_CHECKING:
    from medreward.screening.screening import Screened

log = logging.getLogger(__name__)

#: Takes the second decisions on a request, and by which policy and model they were made.
Compare = Callable[["Screened", Sequence[Decision], dict[str, str]], None]


@dataclass(frozen=True, slots=True)
class Until:
    """When a shadow ends by itself: after a number of decisions, or with the end of a day in UTC."""

    text: str
    decisions: float
    moment: datetime

    @classmethod
    def of(cls, text: str) -> Self:
        """Returns what `--shadow-until` says; fails with a ConfigurationError."""
        latest = datetime.max.replace(tzinfo=UTC)
        if text.isascii() and text.isdigit() and int(text):
            return cls(text, int(text), latest)
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise ConfigurationError(
                f"setting shadow_until: {text!r} is neither a date such as 2027-01-31 nor a number of decisions"
            ) from None
        return cls(text, float("inf"), datetime.combine(day, time(), UTC) + timedelta(days=1))


class Second(Protocol):
    """What decides a second time."""

    about: str  # what it is, for the log and for `GET /admin/state`

    def take(self, screened: "Screened", compare: Compare) -> None:
        """Decides a second time, now or later, and hands the decisions to `compare`; or drops the request and counts
        that. It neither waits nor fails."""
        ...

    async def close(self) -> None: ...


class SecondPolicy:
    """Another policy for the same model, which decides on the logits that are there."""

    def __init__(self, file: PolicyFile, decider: Decider) -> None:
        self._file = file
        self._decider = decider
        self.about = f"policy {file.policy.name} {file.policy.version}"

    def take(self, screened: "Screened", compare: Compare) -> None:
        """Decides and compares at once. After a swap of the model there is nothing to compare: thresholds do not carry
        over."""
        if screened.response.model.fingerprint != self._file.policy.fingerprint:
            return
        request = screened.request
        decisions = self._decider.decide_all(request.asked, screened.response, request.departments)
        compare(screened, decisions, self._file.as_json())

    async def close(self) -> None: ...


class Record:
    """A file of one JSON line for each answer that was decided twice: verdicts and margins, never a payload."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: TextIO | None = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise ConfigurationError(f"setting shadow_file: {path}: {error.strerror}") from None

    def add(self, screened: "Screened", decisions: Sequence[Decision], by: dict[str, str]) -> None:
        """Writes a line for each answer. Where that fails, the shadow goes on without its file."""
        now, served = datetime.now(UTC).isoformat(timespec="milliseconds"), screened.policy.as_json()
        fingerprint = screened.response.model.fingerprint
        try:
            for result, first, second in zip(screened.response.results, screened.decisions, decisions, strict=True):
                line: dict[str, Any] = {
                    "time": now,
                    "decision_id": screened.id,
                    "item": result.item,
                    "response": result.response,
                    "served": {"verdict": first.verdict, "margin": first.margin, "fingerprint": fingerprint} | served,
                    "shadow": {"verdict": second.verdict, "margin": second.margin, "fingerprint": fingerprint} | by,
                }
                if self._file:
                    self._file.write(msgspec.json.encode(line).decode() + "\n")
        except OSError:
            log.exception("the shadow's file cannot be written: the shadow goes on without it")
            self.close()

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


class Shadow:
    """Takes a share of the decisions, the same ones whenever it is asked, until its end."""

    def __init__(
        self,
        second: Second,
        share: float,
        until: Until,
        metrics: Metrics,
        record: Record | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._second = second
        self._share = share
        self._until = until
        self._metrics = metrics
        self._record = record
        self._clock = clock
        self._taken = 0
        self._outcomes: Counter[str] = Counter()
        self._has_ended = False
        log.info("shadow begins", extra={"shadow": second.about, "share": share, "until": until.text})

    async def note(self, screened: "Screened") -> None:
        """Takes note of a decision. Whatever goes wrong here is logged and does not reach the request."""
        try:
            if self.has_ended or zlib.crc32(screened.id.encode()) >= self._share * 2**32:
                return
            self._taken += 1
            self._second.take(screened, self._compare)
        except Exception:
            log.exception("the shadow failed on a decision", extra={"decision": screened.id})

    @property
    def has_ended(self) -> bool:
        """Whether it takes no more decisions. The first to ask after the end logs it."""
        if not self._has_ended and (self._taken >= self._until.decisions or self._clock() >= self._until.moment):
            self._has_ended = True
            log.info("shadow ended", extra={"shadow": self._second.about, "decisions": self._taken})
        return self._has_ended

    def state(self) -> dict[str, object]:
        """Returns what `GET /admin/state` shows."""
        return {
            "of": self._second.about,
            "share": self._share,
            "until": self._until.text,
            "ended": self.has_ended,
            "decisions": self._taken,
            "outcomes": dict(self._outcomes),
        }

    async def close(self) -> None:
        """Lets what waits go, and closes the file."""
        await self._second.close()
        if self._record:
            self._record.close()

    def _compare(self, screened: "Screened", decisions: Sequence[Decision], by: dict[str, str]) -> None:
        for first, second in zip(screened.decisions, decisions, strict=True):
            outcome = f"{first.verdict}_{second.verdict}"
            self._outcomes[outcome] += 1
            self._metrics.shadow_agreement.labels(outcome).inc()
        if self._record:
            self._record.add(screened, decisions, by)
