"""The engine, which every door calls: it checks a request, scores it item by item, and refuses it whole where it
must.
"""

import asyncio
import logging
import os
import time
from typing import Final

from medreward.artifacts.golden import tolerance
from medreward.encoding.image import Pixels, without_fill
from medreward.engine.answers import branches_of
from medreward.engine.bodies import Bodies
from medreward.engine.checks import check_request, weights_of
from medreward.engine.images.fetch import Allowance, fetcher_for
from medreward.engine.images.resolve import ImageFile, Images
from medreward.engine.images.root import ImageRoot
from medreward.engine.images.store import ImageStore
from medreward.engine.items import RequestContext
from medreward.engine.limits import image_limits
from medreward.engine.models import Models
from medreward.engine.queue.scheduler import OVERLOADED
from medreward.engine.scoring import Scoring
from medreward.engine.serving import Serving
from medreward.errors import RETRYABLE, Code, ConfigurationError, ItemError, RequestError
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import (
    DIMENSIONS,
    Clock,
    Failed,
    InlineImage,
    Item,
    Lane,
    Result,
    Scored,
    ScoreRequest,
    ScoreResponse,
    Timings,
    Viewpoints,
)

log = logging.getLogger(__name__)

ASLEEP_SECONDS: Final = 5.0  # until a request that found the server asleep is worth another try
NO_THREAD: Final = "can't start new thread"  # a RuntimeError of Python's own
NO_THREAD_TO_SPARE: Final = "the server has no thread to spare; try again later"


class Engine:
    """Scores requests with one model, from `start` to `close`. It belongs to one event loop."""

    def __init__(self, settings: Settings, metrics: Metrics, clock: Clock = time.monotonic) -> None:
        self.settings = settings
        self.metrics = metrics
        self._clock = clock
        self.bodies = Bodies(settings.bodies_bytes)
        store = ImageStore(settings.image_store_bytes, settings.image_store_seconds, clock)
        root = ImageRoot(settings.image_root) if settings.image_root else None
        self.images = Images(store, image_limits(settings), metrics, fetcher_for(settings), root)
        self.models = Models(settings, self.images, metrics, clock, self._check_golden)
        self._draining = False
        self._stopping = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._show()

    # life

    async def start(self) -> None:
        """Loads the model, warms it up and checks its golden scores. Until then every request is refused as not ready.

        Fails with a ConfigurationError when the model cannot be loaded or a golden score is not as it should be.
        """
        await self.models.start()

    def drain(self) -> None:
        """Refuses new work from now on. What was accepted is finished."""
        self._draining = True

    def undrain(self) -> None:
        """Takes new work again. Fails with a RequestError when the server is stopping."""
        if self._stopping:
            raise RequestError(Code.NOT_READY, "the server is stopping: it takes no requests any more")
        self._draining = False

    def stop(self) -> None:
        """Refuses new work for good."""
        self._draining = self._stopping = True

    @property
    def is_stopping(self) -> bool:
        """Whether it drains for good, so that no new request is taken any more."""
        return self._stopping

    async def idle(self) -> None:
        """Returns when no accepted request is left."""
        await self._idle.wait()

    async def close(self) -> None:
        """Ends the workers, the decoders and all that they were doing."""
        self.images.close()
        await self.models.close()

    def not_ready(self) -> str | None:
        """Returns why no request is taken now, or None."""
        if self._draining:
            return "draining"
        return self.models.not_ready()

    def state(self) -> dict[str, object]:
        """Returns what `GET /admin/state` shows."""
        serving = self.models.current
        scheduler = serving.scheduler if serving else None
        return {
            "ready": self.not_ready() is None,
            "reason": self.not_ready(),
            "requests_in_flight": self._in_flight,
            "cost_admitted": scheduler.room.all_taken if scheduler else 0,
            "pixels_admitted": serving.pictures.room.all_taken if serving else 0,
            "triples_waiting": scheduler.waiting if scheduler else 0,
            "triples_in_flight": len(serving.flights) if serving else 0,
            "request_bytes": self.bodies.held,
            "stored_bytes": self.images.store.bytes,
            "workers": [worker.state() for each in self.models.all() for worker in each.workers],
        }

    def _show(self) -> None:
        """Registers what the gauges read; they ask the engine each time that they are scraped."""
        metrics, settings = self.metrics, self.settings
        metrics.ready.set_function(lambda: self.not_ready() is None)
        metrics.requests_in_flight.set_function(lambda: self._in_flight)
        metrics.request_bytes.watch(lambda: self.bodies.held, settings.bodies_bytes)
        metrics.image_store_bytes.watch(lambda: self.images.store.bytes, settings.image_store_bytes)
        metrics.queue_cost_limit.set(settings.queue_cost)
        metrics.queue_pixels_limit.set(settings.queue_pixels)
        front = ("front", os.getpid())
        metrics.processes.watch(lambda: [front, *(each for one in self.models.all() for each in one.processes())])

    @property
    def serving(self) -> Serving:
        """The model that is served. Fails with a RequestError while it loads."""
        return self.models.serving()

    # images

    async def put_image(self, data: bytes, tenant: str = "") -> tuple[bool, ImageFile]:
        """Stores the image; returns whether it is new, and its checked file. Fails with a RequestError."""
        try:
            return await self.images.put(tenant, data)
        except ItemError as error:
            raise RequestError(error.code, error.detail, retry_after=error.retry_after) from None

    def delete_image(self, digest: str, tenant: str = "") -> bool:
        """Forgets an image that this tenant stored. Returns whether there was one."""
        return self.images.store.delete(tenant, digest)

    async def seen(self, data: bytes, tenant: str, lane: Lane) -> Pixels:
        """Returns what the model sees of the image: its pixels at the model's size, without the black around them.

        Fails with a RequestError for an image that is refused or cannot be decoded in time.
        """
        serving, seconds = self.serving, self.settings.deadline_seconds
        with serving.in_use():
            try:
                async with asyncio.timeout(seconds):
                    file = await self.images.open(InlineImage(data), tenant, Allowance(0))
                    picture = await serving.pictures.hold(file, tenant, lane, self._clock() + seconds)
            except TimeoutError:
                raise RequestError(Code.DEADLINE, "the deadline passed before the image was decoded") from None
            except ItemError as error:
                raise RequestError(error.code, error.detail, retry_after=error.retry_after) from None
            try:
                spec = serving.model.image.of(file.header.width, file.header.height)
                return without_fill(serving.slots.memory.pixels(picture.place), file.header, spec).copy()
            finally:
                picture.holders -= 1

    # scores

    def refuse_early(self, lane: Lane) -> None:
        """Refuses a request before its body is read when the queue is full, so that a flood of requests stays cheap."""
        scheduler = self.serving.scheduler
        if scheduler.room.is_full(lane):
            self.metrics.items.labels(Code.OVERLOADED).inc()
            raise RequestError(Code.OVERLOADED, OVERLOADED, retry_after=scheduler.seconds_until_room())

    async def triples_of(self, request: ScoreRequest) -> int:
        """Returns how many triples the request asks for: its responses, and what else it asks to have scored of each.

        Fails with a RequestError when no thread is to be had to count long texts in.
        """
        if not request.options.ask_for_more:
            return request.triples
        text, options = self.serving.model.text, request.options
        responses = [response for item in request.items for response in item.responses]

        def count() -> int:
            return branches_of(responses, options, text)

        try:
            return request.triples + await asyncio.to_thread(count)
        except RuntimeError as error:
            if str(error) != NO_THREAD:
                raise
            raise RequestError(Code.OVERLOADED, NO_THREAD_TO_SPARE, retry_after=1) from None

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """Returns a result for each response of the request.

        Fails with a RequestError for a request that is wrong as a whole, or whose results all failed for one cause that
        may be gone later.
        """
        if self._draining:
            raise RequestError(Code.NOT_READY, "the server is draining: it takes no new requests", retry_after=1)
        if self.models.asleep:
            await self._woken(request.deadline_s)
        serving = self.models.choose(request)
        check_request(request, serving.model, self.settings)
        self._in_flight += 1
        self._idle.clear()
        try:
            with serving.in_use():
                response = await self._score(request, serving)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
        self._observe(response.results)
        errors = [result.error for result in response.results if isinstance(result, Failed)]
        codes = {error.code for error in errors}
        if len(errors) == len(response.results) and len(codes) == 1 and codes <= RETRYABLE:
            # All of it may pass later, so the request is refused as a whole.
            raise RequestError(errors[0].code, errors[0].detail, retry_after=errors[0].retry_after)
        return response

    async def _woken(self, deadline_s: float | None) -> None:
        """Wakes the server where it does so on demand, or refuses the request."""
        longest = self.settings.deadline_seconds
        if not self.settings.wake_on_demand:
            raise RequestError(Code.ASLEEP, "the server sleeps: it has lent its device", retry_after=ASLEEP_SECONDS)
        try:
            async with asyncio.timeout(min(deadline_s or longest, longest)):
                await self.models.wake()
        except TimeoutError:
            raise RequestError(Code.DEADLINE, "the deadline passed before the server was awake") from None

    async def _score(self, request: ScoreRequest, serving: Serving) -> ScoreResponse:
        started = self._clock()
        longest = self.settings.deadline_seconds
        deadline = started + min(request.deadline_s or longest, longest)
        manifest, viewpoints = serving.model.manifest, None
        if request.options.viewpoints is Viewpoints.ALL:
            viewpoints = {name: viewpoint.weights for name, viewpoint in manifest.viewpoints.items()}
        weights = weights_of(request, serving.model)
        scoring = Scoring(manifest.calibration, weights, viewpoints)
        of_experts = {
            name: Scoring(expert.calibration, weights, viewpoints, name) for name, expert in manifest.experts.items()
        }
        context = RequestContext(
            request,
            deadline,
            scoring,
            Timings(),
            Allowance(self.settings.body_bytes, request.trace),
            of_experts=of_experts,
        )
        calls = [self._score_item(i, item, context, serving) for i, item in enumerate(request.items)]
        per_item = [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls)
        results = tuple(result for item in per_item for result in item)
        context.timings.total = self._clock() - started
        images = tuple(context.opened.get(i, ()) for i in range(len(request.items)))
        return ScoreResponse(request.id, serving.ref, results, context.timings, images, weights)

    async def _score_item(self, i: int, item: Item, context: RequestContext, serving: Serving) -> list[Result]:
        try:
            async with asyncio.timeout(context.deadline - self._clock()):
                return await serving.items.score(i, item, context)
        except TimeoutError:
            failure = ItemError(Code.DEADLINE, "the deadline passed before the score was there")
        except ItemError as error:
            failure = error
        except Exception as error:
            log.exception("item failed", extra={"request_id": context.request.id, "item": i})
            failure = ItemError(Code.INTERNAL, "the server failed on this item; its log says why")
            if str(error) == NO_THREAD:  # the same request may pass later
                failure = ItemError(Code.OVERLOADED, NO_THREAD_TO_SPARE, retry_after=1)
        return [Failed(i, place, failure) for place in range(len(item.responses))]

    def _observe(self, results: tuple[Result, ...]) -> None:
        ok = 0
        for result in results:
            for flag in result.flags:
                self.metrics.flags.labels(flag).inc()
            if isinstance(result, Scored):
                ok += 1
                self.metrics.score.observe(result.scores)
                if result.uncertainty:
                    self.metrics.uncertainty.observe(result.uncertainty)
            else:
                self.metrics.items.labels(result.error.code).inc()
                if result.error.code is Code.NON_FINITE_SCORE:
                    self.metrics.nonfinite_scores.inc()
        if ok:
            self.metrics.items.labels("ok").inc(ok)

    async def _check_golden(self, serving: Serving) -> None:
        model = serving.model
        scales = [calibration.scale for calibration in model.manifest.calibration.values()]
        allowed = tolerance([golden.logits for golden in model.golden], [serving.ref.runtime], scales)
        for n, golden in enumerate(model.golden):
            about = f"golden triple {n} of {model.manifest.name}"
            images = (InlineImage(golden.image),) if golden.image is not None else ()
            item = Item(golden.question, (golden.response,), images)
            result = (await self._score(ScoreRequest("golden", (item,)), serving)).results[0]
            if isinstance(result, Failed):
                raise ConfigurationError(f"{about} cannot be scored: {result.error.code}: {result.error.detail}")
            for dimension, logit, expected in zip(DIMENSIONS, result.logits, golden.logits, strict=True):
                if logit != expected and (logit is None or expected is None or abs(logit - expected) > allowed):
                    raise ConfigurationError(
                        f"{about}: {dimension} is {logit} here and {expected} in golden.json: "
                        f"they may be {allowed:g} apart"
                    )
