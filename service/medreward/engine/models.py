"""Which model answers a request: the one that serves, the one before it, or one that is about to take over."""

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from medreward.engine.images.resolve import Images
from medreward.engine.memory import free_bytes, needed_bytes
from medreward.engine.serving import Serving, start_serving
from medreward.errors import Code, ConfigurationError, RequestError
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import Base64Image, Clock, FrameImage, InlineImage, ScoreRequest, SleepLevel

log = logging.getLogger(__name__)

BUCKETS: Final = 10_000
UNDER_WAY: Final = "the server is changing its model: GET /admin/model says how far it is"

#: Asked before a model takes over. It raises a ConfigurationError to refuse it, or returns what to call when it has.
Gate = Callable[[Serving], "Accepted"]
Accepted = Callable[[], None]


class Plan(StrEnum):
    """Whether the new model is loaded beside the old one, or after the old one was let go for want of memory."""

    BESIDE = "beside"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Change:
    """A model that is to serve. With a share below 1 it first answers that part of the requests."""

    model: str
    require_evidence: str | None = None
    plan: Plan = Plan.BESIDE
    share: float = 1.0


class Models:
    """The servings of one engine. They change one at a time; a request keeps the one that it began with."""

    def __init__(
        self,
        settings: Settings,
        images: Images,
        metrics: Metrics,
        clock: Clock,
        prove: Callable[[Serving], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._images = images
        self._metrics = metrics
        self._clock = clock
        self._prove = prove
        self.gates: list[Gate] = []
        self.current: Serving | None = None
        self.previous: Serving | None = None
        self.candidate: Serving | None = None
        self._share = 0.0
        self._before: Settings | None = None  # of the previous model, which may have been let go since
        self._taken_over_at = 0.0
        self._under_way = ""  # what is being done, while it is
        self._last_problem: str | None = None
        self._farewells: dict[Serving, asyncio.Task[None]] = {}  # of those that are to be closed
        self.asleep: SleepLevel | None = None
        self._waking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Loads the first model. Fails with a ConfigurationError."""
        serving, accepted = await self._prepared(self._settings)
        self._take_over(serving, accepted)

    def choose(self, request: ScoreRequest) -> Serving:
        """Returns the serving that this request is for. A request that pins a model gets it while it is there. The
        others are shared out by their first image, so that what is said of one image is scored by one model."""
        serving = self.serving()
        if pinned := request.fingerprint:
            others = [self.candidate, self.previous if self._in_grace() else None]
            return next((other for other in others if other and other.ref.fingerprint == pinned), serving)
        if self.candidate and _bucket(request) < self._share * BUCKETS:
            return self.candidate
        return serving

    def named(self, fingerprint: str) -> Serving:
        """Returns the serving that gave an answer, by its fingerprint; the current one when it has been let go."""
        return next((one for one in self.all() if one.ref.fingerprint == fingerprint), self.serving())

    def not_ready(self) -> str | None:
        """Returns why no request is taken now, or None."""
        if self.asleep:
            return "asleep"
        if self.current is None:
            return self._under_way or "loading"
        return self.current.not_ready()

    def all(self) -> list[Serving]:
        """Returns every serving that is loaded, the current one first."""
        return [serving for serving in (self.current, self.candidate, self.previous) if serving]

    def state(self) -> dict[str, object]:
        """Returns what `GET /admin/model` shows."""
        return {
            "state": self._under_way or ("asleep" if self.asleep else "canary" if self.candidate else "serving"),
            "model": _about(self.current),
            "previous": _about(self.previous),
            "candidate": _about(self.candidate),
            "share": self._share if self.candidate else None,
            "asleep": self.asleep,
            "last_problem": self._last_problem,
        }

    # swap

    async def swap(self, change: Change) -> None:
        """Makes another model the one that serves, between two requests; or, with a share, one that serves beside it.

        Fails with a RequestError when the model is refused or another change is under way; then the old one serves.
        """
        self._refuse_while_asleep()
        self._refuse_while_changing(f"loading {change.model}")
        is_canary = change.share < 1
        try:
            there = [one for one in (self.candidate, self.previous) if one and one.settings.model == change.model]
            if there and change.require_evidence == there[0].settings.require_evidence:
                serving, accepted = there[0], [] if is_canary else self._accepted(there[0])
            else:
                serving, accepted = await self._new(change, is_canary)
            if is_canary:
                self._drop_candidate(keep=serving)
                self._stays(serving)
                self.candidate, self._share, self._last_problem = serving, change.share, None
                return
        except ConfigurationError as error:
            raise self._refused(error) from None
        finally:
            self._under_way = ""
        self._take_over(serving, accepted, "taken_over")

    async def roll_back(self) -> None:
        """Takes a candidate away, or else makes the model before the one that serves, at once where it is still
        loaded. Fails with a RequestError where there is none or it is refused."""
        self._refuse_while_asleep()
        self._refuse_while_changing("rolling back")
        try:
            if self.candidate:
                self._drop_candidate()
                self._metrics.model_swaps.labels("rolled_back").inc()
                return
            if self._before is None:
                raise RequestError(Code.MODEL_REFUSED, "no model served before this one: there is none to go back to")
            if self.previous:
                serving, accepted = self.previous, self._accepted(self.previous)
            else:
                serving, accepted = await self._prepared(self._before)
        except ConfigurationError as error:
            raise self._refused(error) from None
        finally:
            self._under_way = ""
        self._take_over(serving, accepted, "rolled_back")

    async def _new(self, change: Change, is_canary: bool) -> tuple[Serving, list[Accepted]]:
        """Returns the new model, loaded as its plan says. Under the plan `drain` the old one is let go before, and is
        loaded again when the new one is refused."""
        settings = self._settings.model_copy(
            update={"model": change.model, "require_evidence": change.require_evidence}
        )
        old = self.serving()
        if change.plan is Plan.BESIDE:
            needed, free = await asyncio.to_thread(needed_bytes, settings), free_bytes()
            if needed > free:
                raise ConfigurationError(
                    f"this machine has {free >> 20} MiB free, and {change.model} beside the model that serves may take "
                    f"{needed >> 20} MiB: ask for the plan drain, during which no request is taken"
                )
            return await self._prepared(settings, not is_canary)
        servings = self.all()
        self.current = self.previous = self.candidate = None  # from here on the server is not ready
        for serving in servings:
            self._stays(serving)
            await serving.idle.wait()
            await serving.close()
        try:
            new = await self._prepared(settings, not is_canary)
        except ConfigurationError:
            self.current = (await self._prepared(old.settings))[0]
            self.current.show()
            raise
        self._before = old.settings
        return new

    def _take_over(self, serving: Serving, accepted: list[Accepted], outcome: str = "") -> None:
        old, self.current = self.current, serving
        for call in accepted:
            call()
        self._stays(serving)
        if self.previous and self.previous is not serving:
            self._farewell(self.previous, 0)
        if self.candidate is serving:
            self.candidate = None
        self.previous, self._taken_over_at, self._last_problem = old, self._clock(), None
        if old:
            self._before = old.settings
            self._farewell(old, max(self._settings.swap_keep_seconds, self._settings.swap_grace_seconds))
        self._metrics.describe(serving.ref)
        serving.show()
        if outcome:
            self._metrics.model_swaps.labels(outcome).inc()
            log.info("model took over", extra={"fingerprint": serving.ref.fingerprint, "how": outcome})

    def _refused(self, error: ConfigurationError) -> RequestError:
        self._last_problem = str(error)
        self._metrics.model_swaps.labels("refused").inc()
        log.error("the model is refused; the old one serves", extra={"reason": str(error)})
        return RequestError(Code.MODEL_REFUSED, f"{error}; the old model serves")

    async def _prepared(self, settings: Settings, is_to_take_over: bool = True) -> tuple[Serving, list[Accepted]]:
        """Returns a serving whose golden scores are right and which every gate has accepted. Fails with a
        ConfigurationError, and then nothing is left of it."""
        serving = await start_serving(settings, self._images, self._metrics, self._clock)
        try:
            await self._prove(serving)
            return serving, self._accepted(serving) if is_to_take_over else []
        except BaseException:
            await serving.close()
            raise

    def _accepted(self, serving: Serving) -> list[Accepted]:
        return [gate(serving) for gate in self.gates]

    def _farewell(self, serving: Serving, seconds: float) -> None:
        """Closes a serving after so many seconds, when its last request has been answered; unless it `_stays`."""

        async def say() -> None:
            await asyncio.sleep(seconds)
            if serving is self.previous:
                self.previous = None
            await serving.idle.wait()
            await serving.close()
            del self._farewells[serving]

        self._stays(serving)
        self._farewells[serving] = asyncio.create_task(say(), name="farewell")

    def _stays(self, serving: Serving) -> None:
        if farewell := self._farewells.pop(serving, None):
            farewell.cancel()

    def _drop_candidate(self, keep: Serving | None = None) -> None:
        dropped, self.candidate = self.candidate, None
        if dropped and dropped is not keep:
            self._farewell(dropped, 0)

    # sleep

    async def sleep(self, level: SleepLevel) -> None:
        """Frees the device when the requests under way are answered. Until it wakes every request is refused as
        asleep. Fails with a RequestError while the model changes, and where the worker cannot."""
        serving = self.serving()
        self._refuse_while_changing("falling asleep")
        self.asleep = level
        self._metrics.asleep.set(level)
        try:
            for other in (self.candidate, self.previous):
                if other:
                    self._farewell(other, 0)
            self.candidate = self.previous = None
            await serving.idle.wait()
            await serving.sleep(level)
            log.info("asleep", extra={"level": int(level)})
        except ConfigurationError as error:
            self.asleep = None
            self._metrics.asleep.set(0)
            raise RequestError(Code.NOT_READY, f"the server cannot sleep at this level: {error}") from None
        finally:
            self._under_way = ""

    async def wake(self) -> None:
        """Takes the device again and proves the golden scores; then requests are taken. Does nothing when awake.

        Fails with a RequestError where the device is taken or a score is not as before; then it sleeps on.
        """
        if self.asleep is None:
            return
        if self._waking is None:  # all who ask for it wait for the same waking
            self._refuse_while_changing("waking")
            self._waking = asyncio.create_task(self._wake(self.serving()), name="waking")
        await asyncio.shield(self._waking)

    async def _wake(self, serving: Serving) -> None:
        try:
            await serving.wake()
            await self._prove(serving)
        except ConfigurationError as error:
            log.error("the server cannot wake", extra={"reason": str(error)})
            raise RequestError(Code.NOT_READY, f"the server cannot wake: {error}", retry_after=1) from None
        finally:
            self._under_way, self._waking = "", None
        self.asleep = None
        self._metrics.asleep.set(0)
        log.info("awake")

    async def close(self) -> None:
        """Ends all servings."""
        leaving = {*self._farewells, *self.all()}
        for task in self._farewells.values():
            task.cancel()
        await asyncio.gather(*(serving.close() for serving in leaving))

    def serving(self) -> Serving:
        """Returns the current serving. Fails with a RequestError while there is none."""
        if self.current is None:
            detail = "the model is being exchanged" if self._under_way else "the model is still loading"
            raise RequestError(Code.NOT_READY, detail, retry_after=1)
        return self.current

    def _in_grace(self) -> bool:
        return self._clock() - self._taken_over_at < self._settings.swap_grace_seconds

    def _refuse_while_asleep(self) -> None:
        if self.asleep:
            raise RequestError(Code.ASLEEP, "the server sleeps: wake it before its model is changed")

    def _refuse_while_changing(self, what: str) -> None:
        """Notes what is being done from now on. Refuses it while something else is."""
        if self._under_way:
            raise RequestError(Code.CHANGE_UNDER_WAY, UNDER_WAY)
        self._under_way = what


def _about(serving: Serving | None) -> dict[str, str] | None:
    return serving.ref.as_json() if serving else None


def _bucket(request: ScoreRequest) -> int:
    """Returns a number below BUCKETS that all requests about the same first image share."""
    item = request.items[0] if request.items else None
    first = item.images[0] if item and item.images else None
    match first.file if isinstance(first, FrameImage) else first:
        case InlineImage(data):
            key = data
        case Base64Image(text):
            key = text.encode()
        case None:
            key = item.question.encode() if item else b""
        case other:
            key = repr(other).encode()
    return zlib.crc32(key) % BUCKETS
