"""The way of one item through the engine: check, encode, look up, admit, decode, queue, score."""

import asyncio
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from medreward.backends.base import CostModel, HeadOutputs
from medreward.encoding.text import EncodedText, TextEncoder
from medreward.engine.checks import check_item
from medreward.engine.images.fetch import Allowance
from medreward.engine.images.pictures import Pictures
from medreward.engine.images.resolve import ImageFile, Images
from medreward.engine.images.slots import Picture
from medreward.engine.model import Model
from medreward.engine.queue.flights import Flight, Flights, Landed, flight_id, prompt_digest
from medreward.engine.queue.scheduler import GroupKey, Scheduler
from medreward.engine.scoring import Scoring
from medreward.errors import ItemError
from medreward.types import Clock, Failed, Flag, Item, Options, Result, ScoreRequest, Timings

QUICK_CHARS: Final = 20_000  # of a request: tokenised within a few milliseconds


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request under way: its deadline, how its logits become scores, its timings, and what it may still fetch."""

    request: ScoreRequest
    deadline: float
    scoring: Scoring
    timings: Timings
    allowance: Allowance


@dataclass(frozen=True, slots=True)
class Answer:
    place: int  # among the item's responses
    text: EncodedText
    id: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item's texts as ids and its image as a checked file; responses that cannot be scored have failed already."""

    file: ImageFile | None
    prompt: EncodedText
    key: GroupKey
    answers: list[Answer]
    failed: list[Result]


class Items:
    """Scores items with one model. It keeps nothing of a request beyond the call."""

    def __init__(
        self,
        model: Model,
        cost: CostModel,
        images: Images,
        pictures: Pictures,
        scheduler: Scheduler[Flight],
        flights: Flights,
        work: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._model = model
        self._cost = cost
        self._images = images
        self._pictures = pictures
        self._scheduler = scheduler
        self._flights = flights
        self._work = work
        self._clock = clock

    async def score(self, i: int, item: Item, context: RequestContext) -> list[Result]:
        prepared = await self._prepare(i, item, context)
        flags = prepared.prompt.flags if prepared.file else (Flag.NO_IMAGE, *prepared.prompt.flags)
        if item.is_raw:
            flags = (*flags, Flag.RAW_TEXT)
        results = prepared.failed
        unknown = []
        for answer in prepared.answers:
            known = self._flights.known(answer.id)
            if known is None:
                unknown.append(answer)
            else:
                results.append(_result(i, answer, known, flags, context.scoring, cached=True))
        if unknown:
            landed = await self._fly(prepared, unknown, context)
            results += [
                _result(i, answer, end.outcome, flags, context.scoring)
                for answer, end in zip(unknown, landed, strict=True)
            ]
        return sorted(results, key=lambda result: result.response)

    async def _prepare(self, i: int, item: Item, context: RequestContext) -> Prepared:
        request = context.request
        check_item(item, self._model)
        chars = len(item.question) + sum(map(len, item.responses))
        long = chars * len(request.items) > QUICK_CHARS
        encode = functools.partial(_encode, i, item, request.options, self._model.text)
        prompt, texts, failed = await asyncio.to_thread(encode) if long else encode()
        file = await self._images.open(item.images[0], request.tenant, context.allowance) if item.images else None
        digest = file.digest if file else ""
        key = GroupKey(request.lane, request.tenant, digest, prompt_digest(prompt.ids))
        answers = [Answer(place, text, flight_id(key, text.ids)) for place, text in texts]
        return Prepared(file, prompt, key, answers, failed)

    async def _fly(self, prepared: Prepared, answers: Sequence[Answer], context: RequestContext) -> list[Landed]:
        lane, prompt = prepared.key.lane, len(prepared.prompt.ids)
        deadline, timings = context.deadline, context.timings
        costs = [self._cost.answer(prompt, len(answer.text.ids)) for answer in answers]
        costs[0] += self._cost.group(prompt, self._pixels(prepared.file))
        reserved = sum(costs)
        self._scheduler.admit(reserved, lane, self._clock(), deadline)
        flights: list[Flight] = []
        picture: Picture | None = None
        try:
            picture = await self._held(prepared, context)
            for answer, cost in zip(answers, costs, strict=True):
                flight = self._flights.joined(answer.id, deadline)
                if flight is None:
                    since = self._clock()
                    flight = Flight(
                        prepared.key,
                        prepared.prompt.ids,
                        answer.text.ids,
                        cost,
                        since,
                        deadline,
                        id=answer.id,
                        picture=picture,
                    )
                    self._flights.launch(flight)
                    reserved -= cost  # the flight gives it back
                flights.append(flight)
            self._work.set()
            await _all_landed(flights)
        finally:
            self._scheduler.release(reserved, lane)
            if picture:
                picture.holders -= 1
            for flight in flights:
                self._flights.leave(flight)
        landed = [flight.landed.result() for flight in flights]
        timings.queue = max(timings.queue, *(end.queue_s for end in landed))
        timings.inference = max(timings.inference, *(end.inference_s for end in landed))
        return landed

    def _pixels(self, file: ImageFile | None) -> int:
        """How many pixels the image has at the size at which the model sees it; 0 without an image."""
        return self._model.image.of(file.header.width, file.header.height).pixels if file else 0

    async def _held(self, prepared: Prepared, context: RequestContext) -> Picture | None:
        if prepared.file is None:
            return None
        started = self._clock()
        picture = await self._pictures.held(prepared.file, prepared.key.tenant, prepared.key.lane, context.deadline)
        context.timings.decode = max(context.timings.decode, self._clock() - started)
        return picture


async def _all_landed(flights: Iterable[Flight]) -> None:
    """Unlike gather, leaves the futures alone when it is cancelled: others may wait for them too."""
    pending = {flight.landed for flight in flights if not flight.landed.done()}
    if pending:
        await asyncio.wait(pending)


def _encode(
    i: int, item: Item, options: Options, text: TextEncoder
) -> tuple[EncodedText, list[tuple[int, EncodedText]], list[Result]]:
    prompt = text.prompt(item.question, bool(item.images), may_be_empty=item.is_raw)
    answers: list[tuple[int, EncodedText]] = []
    failed: list[Result] = []
    for place, response in enumerate(item.responses):
        try:
            answers.append((place, text.answer(prompt, response, options)))
        except ItemError as error:
            failed.append(Failed(i, place, error))
    return prompt, answers, failed


def _result(
    i: int,
    answer: Answer,
    outcome: HeadOutputs | ItemError,
    flags: tuple[Flag, ...],
    scoring: Scoring,
    cached: bool = False,
) -> Result:
    all_flags = _merged(flags, answer.text.flags)
    if isinstance(outcome, ItemError):
        return Failed(i, answer.place, outcome, all_flags)
    return scoring.result(i, answer.place, outcome, all_flags, cached)


def _merged(ours: tuple[Flag, ...], theirs: tuple[Flag, ...]) -> tuple[Flag, ...]:
    return tuple(dict.fromkeys((*ours, *theirs))) if theirs else ours
