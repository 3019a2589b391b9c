"""The one door behind every transport: check, admit, decode, batch, await, answer."""

import asyncio
import functools
import logging
import math
import time
from dataclasses import dataclass, replace
from typing import Final

from medreward.backends.base import Group, ModelImage
from medreward.cores import available_cores
from medreward.encoding.image import ImageHeader, ImageLimits
from medreward.encoding.text import EncodedText, TextEncoder
from medreward.engine.checks import check_item, check_request, weights_of
from medreward.engine.dispatcher import Dispatcher
from medreward.engine.images import NO_PIXELS, ImageFile, Images, ImageStore
from medreward.engine.model import Model, open_model
from medreward.engine.scheduler import Scheduler
from medreward.engine.scoring import Scoring, heads_of
from medreward.errors import RETRYABLE, Code, ConfigurationError, ItemError, RequestError
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import (
    DIMENSIONS,
    Failed,
    Flag,
    InlineImage,
    Item,
    Lane,
    Options,
    Result,
    Scored,
    ScoreRequest,
    ScoreResponse,
    Timings,
)
from medreward.workers.worker import Worker

log = logging.getLogger(__name__)

GOLDEN_TOLERANCE: Final = 1e-4
QUICK_CHARS: Final = 20_000  # tokenised within a few milliseconds


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item's text as ids and its image as a checked file; responses that cannot be scored have failed already."""

    file: ImageFile | None
    prompt: EncodedText
    answers: list[tuple[int, EncodedText]]  # place among the item's responses, ids
    failed: list[Failed]


@dataclass(frozen=True)
class Serving:
    """A model with the worker that runs it and the queue in front."""

    model: Model
    worker: Worker
    dispatcher: Dispatcher


class Engine:
    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.images = _images(settings, metrics)
        self._scheduler = Scheduler(settings.queue_cost, settings.batch_cost)
        self._serving: Serving | None = None
        self._draining = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._queue_cost = {lane: metrics.queue_cost.labels(lane) for lane in Lane}

    # life

    async def start(self) -> None:
        """Load, warm up, check the golden scores. Until then every request is refused as not ready."""
        model = await asyncio.to_thread(open_model, self.settings)
        worker = Worker(model.backend)
        await worker.warm_up()
        serving = Serving(model, worker, Dispatcher(worker, self._scheduler, self.metrics))
        await self._check_golden(serving)
        self.metrics.describe(model.ref)
        self._serving = serving

    def drain(self) -> None:
        """Refuse new work; what was accepted goes on."""
        self._draining = True

    async def idle(self) -> None:
        """Returns when no accepted request is left."""
        await self._idle.wait()

    def close(self) -> None:
        self.images.close()
        if self._serving:
            self._serving.dispatcher.close()
            self._serving.worker.close()

    def not_ready(self) -> str | None:
        """Why no request is taken now, or None."""
        if self._draining:
            return "draining"
        return None if self._serving else "loading"

    def state(self) -> dict[str, object]:
        return {
            "ready": self.not_ready() is None,
            "reason": self.not_ready(),
            "requests_in_flight": self._in_flight,
            "cost_admitted": self._scheduler.admitted,
            "images": self.images.state(),
        }

    @property
    def serving(self) -> Serving:
        if self._serving is None:
            raise RequestError(Code.NOT_READY, "the model is still loading", retry_after=1)
        return self._serving

    @property
    def model(self) -> Model:
        return self.serving.model

    # images

    async def put_image(self, data: bytes, tenant: str = "") -> tuple[str, bool, ImageHeader]:
        try:
            return await self.images.put(tenant, data)
        except ItemError as error:
            raise RequestError(error.code, error.detail, retry_after=error.retry_after) from None

    # scores

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        serving = self.serving
        if self._draining:
            raise RequestError(Code.NOT_READY, "the server is shutting down", retry_after=1)
        check_request(request, serving.model, self.settings)
        self._in_flight += 1
        self._idle.clear()
        try:
            response = await self._score(request, serving)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
        self._observe(response.results)
        self._refuse_if_all_may_pass_later(response.results)
        return response

    async def _score(self, request: ScoreRequest, serving: Serving) -> ScoreResponse:
        started = time.monotonic()
        timings = Timings()
        model = serving.model
        scoring = Scoring(model.manifest.calibration, weights_of(request, model))
        calls = [self._score_item(i, item, request, scoring, serving, timings) for i, item in enumerate(request.items)]
        per_item = [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls)
        results = tuple(result for item in per_item for result in item)
        timings.total = time.monotonic() - started
        return ScoreResponse(request.id, model.ref, results, timings)

    async def _score_item(
        self, i: int, item: Item, request: ScoreRequest, scoring: Scoring, serving: Serving, timings: Timings
    ) -> list[Result]:
        longest = self.settings.deadline_seconds
        try:
            async with asyncio.timeout(min(request.deadline_s or longest, longest)):
                prepared = await self._prepare(i, item, request, serving.model)
                scored = await self._score_prepared(i, prepared, request.lane, scoring, serving, timings)
        except TimeoutError:
            return _all_failed(i, item, ItemError(Code.DEADLINE, "the deadline passed before the score was there"))
        except ItemError as error:
            return _all_failed(i, item, error)
        except Exception:
            log.exception("item failed", extra={"request_id": request.id, "item": i})
            return _all_failed(i, item, ItemError(Code.INTERNAL, "a fault of the server"))
        return sorted([*prepared.failed, *scored], key=lambda result: result.response)

    async def _score_prepared(
        self, i: int, prepared: Prepared, lane: Lane, scoring: Scoring, serving: Serving, timings: Timings
    ) -> list[Result]:
        if not prepared.answers:
            return []
        image = ModelImage(prepared.file.digest, NO_PIXELS) if prepared.file else None
        group = Group(image, prepared.prompt.ids, [answer.ids for _, answer in prepared.answers])
        cost = serving.model.backend.cost(group)
        self._admit(cost, lane)
        try:
            if prepared.file:
                decoding = time.monotonic()
                group = replace(group, image=await self.images.decode(prepared.file, serving.model.image))
                timings.decode = max(timings.decode, time.monotonic() - decoding)
            answer = await serving.dispatcher.submit(group, cost, lane)
        finally:
            self._release(cost, lane)
        timings.queue = max(timings.queue, answer.queue_s)
        timings.inference = max(timings.inference, answer.inference_s)
        flags = prepared.prompt.flags if image else (Flag.NO_IMAGE, *prepared.prompt.flags)
        return [
            scoring.result(i, place, heads, _merged(flags, text.flags))
            for (place, text), heads in zip(prepared.answers, heads_of(answer.logits), strict=True)
        ]

    async def _prepare(self, i: int, item: Item, request: ScoreRequest, model: Model) -> Prepared:
        check_item(item, model)
        long = len(item.question) + sum(map(len, item.responses)) > QUICK_CHARS
        encode = functools.partial(_encode, i, item, request.options, model.text)
        texts = await asyncio.to_thread(encode) if long else encode()
        file = await self.images.open(item.images[0], request.tenant) if item.images else None
        return Prepared(file, *texts)

    def _admit(self, cost: int, lane: Lane) -> None:
        try:
            self._scheduler.admit(cost)
        except ItemError as error:
            error.retry_after = self._time_to_clear()
            raise
        self._queue_cost[lane].inc(cost)

    def _release(self, cost: int, lane: Lane) -> None:
        self._scheduler.release(cost)
        self._queue_cost[lane].dec(cost)

    def _time_to_clear(self) -> float:
        """Whole seconds after which what is queued now should be done, from the rate of late."""
        rate = self._serving.dispatcher.cost_per_second if self._serving else 0.0
        return float(min(30, max(1, math.ceil(self._scheduler.admitted / rate)))) if rate else 1.0

    def _refuse_if_all_may_pass_later(self, results: tuple[Result, ...]) -> None:
        errors = [result.error for result in results if isinstance(result, Failed)]
        if len(errors) < len(results) or len({error.code for error in errors}) > 1:
            return
        if errors[0].code in RETRYABLE:
            raise RequestError(errors[0].code, errors[0].detail, retry_after=errors[0].retry_after)

    def _observe(self, results: tuple[Result, ...]) -> None:
        ok = 0
        for result in results:
            if isinstance(result, Scored):
                ok += 1
                self.metrics.score.observe(result.scores)
            else:
                self.metrics.items.labels(result.error.code).inc()
                if result.error.code is Code.NON_FINITE_SCORE:
                    self.metrics.nonfinite_scores.inc()
        if ok:
            self.metrics.items.labels("ok").inc(ok)

    async def _check_golden(self, serving: Serving) -> None:
        for n, golden in enumerate(serving.model.golden):
            about = f"golden triple {n} of {serving.model.manifest.name}"
            images = (InlineImage(golden.image),) if golden.image is not None else ()
            item = Item(golden.question, (golden.response,), images)
            result = (await self._score(ScoreRequest("golden", (item,)), serving)).results[0]
            if isinstance(result, Failed):
                raise ConfigurationError(f"{about} failed: {result.error.code}")
            for dimension, logit, expected in zip(DIMENSIONS, result.logits, golden.logits, strict=True):
                if abs(logit - expected) > GOLDEN_TOLERANCE:
                    raise ConfigurationError(f"{about}: {dimension} differs")


def _encode(
    i: int, item: Item, options: Options, text: TextEncoder
) -> tuple[EncodedText, list[tuple[int, EncodedText]], list[Failed]]:
    prompt = text.prompt(item.question)
    answers: list[tuple[int, EncodedText]] = []
    failed: list[Failed] = []
    for place, response in enumerate(item.responses):
        try:
            answers.append((place, text.answer(prompt, response, options)))
        except ItemError as error:
            failed.append(Failed(i, place, error))
    return prompt, answers, failed


def _all_failed(i: int, item: Item, error: ItemError) -> list[Result]:
    return [Failed(i, place, error) for place in range(len(item.responses))]


def _merged(ours: tuple[Flag, ...], theirs: tuple[Flag, ...]) -> tuple[Flag, ...]:
    return tuple(dict.fromkeys((*ours, *theirs))) if theirs else ours


def _images(settings: Settings, metrics: Metrics) -> Images:
    limits = ImageLimits(
        bytes=settings.image_bytes,
        pixels=settings.image_pixels,
        side=settings.image_side,
        min_side=settings.image_min_side,
        aspect=settings.image_aspect,
    )
    store = ImageStore(settings.image_store_bytes, settings.image_store_seconds)
    threads = settings.decode_threads or available_cores()
    return Images(store, limits, settings.pixel_cache_bytes, threads, metrics)
