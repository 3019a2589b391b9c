"""The audit log beside the event loop: decisions that come while others are written share the next write."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from medreward.errors import Code, ConfigurationError, RequestError
from medreward.metrics import Metrics
from medreward.screening.audit.chain import Entry
from medreward.screening.audit.entries import Override, decision_entry, override_entry
from medreward.screening.audit.erasing import erasure_entry, find_subjects, rewrite
from medreward.screening.audit.files import older_files
from medreward.screening.audit.key import default_key_file, make_key, read_key
from medreward.screening.audit.log import AuditLog, now
from medreward.screening.audit.looking import find_decision
from medreward.settings import Settings

if TYPE_CHECKING:  # it imports this room
    from medreward.screening.screening import Screened

log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 10.0  # for the disk, before a decision counts as not written
MOST_WAITING: Final = 10_000  # entries, when the disk has stopped
REMEMBERED: Final = 10_000  # decisions that an override finds without reading files
RETRY_SECONDS: Final = 5.0
NOT_WRITTEN: Final = "the audit log cannot be written, so nothing is decided: the server's log says why"
NOT_ERASED: Final = "the erasure was not finished: the server's log says why; ask again when that is mended"

Make = Callable[[], Entry]
Written = tuple[Make, asyncio.Future[None]]  # what makes an entry, and what waits until that is on disk


class Audit:
    """Writes each decision into the log before it is answered. Fails with a ConfigurationError as `AuditLog` does."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        assert settings.audit
        key_file = settings.audit_key_file or default_key_file(settings.audit)
        self._key = read_key(key_file) if key_file.exists() else make_key(key_file)
        self._log = AuditLog(settings.audit, self._key, settings.audit_bytes, settings.audit_fsync == "on")
        self._may_lose = settings.audit_full == "count"
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, "audit")  # one, so that entries keep their order
        self._waiting: list[Written] = []
        self._quiet = asyncio.Event()  # set while nothing is being written
        self._quiet.set()
        self._is_failing = False
        self._erasing = asyncio.Lock()
        self._recent: OrderedDict[str, Entry] = OrderedDict()
        metrics.audit_seq.set_function(lambda: self._log.head.seq)
        log.info("audit log opened", extra=self._log.state())

    async def note(self, screened: "Screened") -> None:
        """Returns when the decision is on disk. Where it cannot be written, the request is refused, or the loss is
        counted, as the setting audit_full says."""
        if not await self._write(partial(decision_entry, screened, now(), self._key)):
            if not self._may_lose:
                raise self._refused()
            self._metrics.audit_lost.inc()
            return
        verdicts = [
            {"item": result.item, "response": result.response, "verdict": decision.verdict}
            for result, decision in zip(screened.response.results, screened.decisions, strict=True)
        ]
        self._recent[screened.id] = {"tenant": screened.request.asked.tenant, "results": verdicts}
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)

    async def decided(self, decision_id: str, tenant: str) -> list[dict[str, Any]]:
        """Returns item, response and verdict of each result of a decision. Refuses an id that no decision of this
        tenant has. One that is not remembered is looked up in the files."""
        decision = self._recent.get(decision_id) or await asyncio.to_thread(find_decision, self._log.file, decision_id)
        if decision is None or decision["tenant"] != tenant:
            raise RequestError(Code.NOT_FOUND, "no decision in the audit log has this id")
        results: list[dict[str, Any]] = decision["results"]
        return results

    async def override(self, override: Override) -> None:
        """Returns when the override is on disk. One that cannot be written is refused, whatever audit_full says."""
        if not await self._write(partial(override_entry, override, now())):
            raise self._refused()

    async def erase(self, sha256: Sequence[str], decisions: Sequence[str], by: str) -> int:
        """Erases what the log holds about payloads with these SHA-256 and about these decisions. Returns about how many
        responses. Fails with a RequestError where the log is broken or cannot be written; asked again, it goes on.

        FILE is renamed first, so that decisions are written into another file than those that are replaced.
        """
        digests = [*map(self._key.digest_of, sha256)]
        async with self._erasing:
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._log.rotate)
                places = await asyncio.to_thread(find_subjects, older_files(self._log.file), digests, decisions)
                if places and not await self._write(partial(erasure_entry, places, by)):
                    raise self._refused()
                for file, entries in places.items():
                    await asyncio.to_thread(rewrite, file, entries)
            except (OSError, ConfigurationError) as error:
                log.error("the erasure was not finished", extra={"reason": str(error)})
                raise RequestError(Code.AUDIT_FAILED, NOT_ERASED) from None
        return sum(len(parts) for entries in places.values() for parts in entries.values())

    def state(self) -> dict[str, object]:
        """Returns what `GET /admin/state` shows."""
        return {**self._log.state(), "waiting": len(self._waiting), "failing": self._is_failing}

    async def close(self) -> None:
        """Writes what waits, and lets another server have the log."""
        await self._quiet.wait()
        self._thread.shutdown()
        log.info("audit log closed", extra=self._log.state())
        self._log.close()

    def _refused(self) -> RequestError:
        self._metrics.audit_refused.inc()
        return RequestError(Code.AUDIT_FAILED, NOT_WRITTEN, retry_after=RETRY_SECONDS)

    async def _write(self, make: Make) -> bool:
        """Returns whether the entry came onto the disk in time."""
        written = asyncio.get_running_loop().create_future()
        try:
            if len(self._waiting) >= MOST_WAITING:
                raise TimeoutError
            self._waiting.append((make, written))
            if self._quiet.is_set():
                self._start_writing()
            async with asyncio.timeout(WAIT_SECONDS):
                await written
        except (OSError, TimeoutError) as error:
            self._failed(error)
            return False
        self._is_failing = False
        return True

    def _start_writing(self) -> None:
        """Gives all that waits to the thread, for one write to the disk."""
        self._quiet.clear()
        batch, self._waiting = self._waiting, []
        self._thread.submit(self._append, batch, asyncio.get_running_loop())

    def _append(self, batch: list[Written], loop: asyncio.AbstractEventLoop) -> None:
        """Runs in the thread. It calls back into the loop by the shortest way, for each detour through a busy loop
        costs milliseconds."""
        failure: Exception | None = None
        try:
            with self._metrics.audit_write_duration.time():
                self._log.append([make() for make, _ in batch])
        except Exception as error:
            failure = error
        loop.call_soon_threadsafe(self._appended, batch, failure)

    def _appended(self, batch: list[Written], failure: Exception | None) -> None:
        for _, written in batch:
            if written.done():  # its caller has left
                continue
            if failure:
                written.set_exception(failure)
            else:
                written.set_result(None)
        if self._waiting:
            self._start_writing()
        else:
            self._quiet.set()

    def _failed(self, error: Exception) -> None:
        """Says once why nothing is written, until something is written again."""
        if not self._is_failing:
            reason = (isinstance(error, OSError) and error.strerror) or f"the disk took more than {WAIT_SECONDS:g} s"
            log.error("the audit log cannot be written", extra={"reason": reason, "may_lose": self._may_lose})
        self._is_failing = True
