"""Takes one item through the engine: check, encode, look up, admit, decode, queue, score."""

import asyncio
import functools
from collections.abc import Sequence
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
    """A response as token ids, and the id of its triple."""

    place: int  # among the item's responses
    text: EncodedText
    id: str


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
        """Returns a result for each response of item `i`. Fails with an ItemError that is that of all of them."""
        request = context.request
        check_item(item, self._model)
        chars = len(item.question) + sum(map(len, item.responses))
        encode = functools.partial(_encode, i, item, request.options, self._model.text)
        is_long = chars * len(request.items) > QUICK_CHARS
        prompt, texts, results = await asyncio.to_thread(encode) if is_long else encode()
        file = await self._images.open(item.images[0], request.tenant, context.allowance) if item.images else None
        key = GroupKey(request.lane, request.tenant, file.digest if file else "", prompt_digest(prompt.ids))
        flags = prompt.flags if file else (Flag.NO_IMAGE, *prompt.flags)
        if item.is_raw:
            flags = (*flags, Flag.RAW_TEXT)
        unknown = []
        for place, text in texts:
            answer = Answer(place, text, flight_id(key, text.ids))
            known = self._flights.known(answer.id)
            if known is None:
                unknown.append(answer)
            else:
                results.append(_result(i, answer, known, flags, context.scoring, cached=True))
        if unknown:
            landed = await self._fly(key, prompt.ids, file, unknown, context)
            results += [
                _result(i, answer, end.outcome, flags, context.scoring)
                for answer, end in zip(unknown, landed, strict=True)
            ]
        return sorted(results, key=lambda result: result.response)

    async def _fly(
        self,
        key: GroupKey,
        prompt: Sequence[int],
        file: ImageFile | None,
        answers: Sequence[Answer],
        context: RequestContext,
    ) -> list[Landed]:
        """Puts the answers on flights, and returns how these landed, in order.

        Fails with an ItemError when the answers are not admitted or the image cannot be decoded.
        """
        deadline, timings = context.deadline, context.timings
        costs = [self._cost.answer(len(prompt), len(answer.text.ids)) for answer in answers]
        # The image counts at the size at which the model sees it.
        pixels = self._model.image.of(file.header.width, file.header.height).pixels if file else 0
        costs[0] += self._cost.group(len(prompt), pixels)
        reserved = sum(costs)
        self._scheduler.admit(reserved, key.lane, self._clock(), deadline)
        flights: list[Flight] = []
        picture: Picture | None = None
        try:
            picture = await self._hold(file, key, context) if file else None
            for answer, cost in zip(answers, costs, strict=True):
                flight = self._flights.joined(answer.id, deadline)
                if flight is None:
                    ids, since = answer.text.ids, self._clock()
                    flight = Flight(key, prompt, ids, cost, since, deadline, id=answer.id, picture=picture)
                    self._flights.launch(flight)
                    reserved -= cost  # the flight gives it back
                if context.request.trace:
                    flight.traces.append(context.request.trace)
                flights.append(flight)
            self._work.set()
            # Unlike gather, wait leaves the futures alone when it is cancelled: others may wait for them too.
            if pending := {flight.landed for flight in flights if not flight.landed.done()}:
                await asyncio.wait(pending)
        finally:
            self._scheduler.release(reserved, key.lane)
            if picture:
                picture.holders -= 1
            for flight in flights:
                self._flights.leave(flight)
        landed = [flight.landed.result() for flight in flights]
        timings.queue = max(timings.queue, *(end.queue_s for end in landed))
        timings.inference = max(timings.inference, *(end.inference_s for end in landed))
        return landed

    async def _hold(self, file: ImageFile, key: GroupKey, context: RequestContext) -> Picture:
        """Returns the picture of the file with one more holder, and notes how long it took to get it."""
        started = self._clock()
        picture = await self._pictures.hold(file, key.tenant, key.lane, context.deadline)
        ended = self._clock()
        context.timings.decode = max(context.timings.decode, ended - started)
        if context.request.trace:
            context.request.trace.phase("decode", started, ended)
        return picture


def _encode(
    i: int, item: Item, options: Options, text: TextEncoder
) -> tuple[EncodedText, list[tuple[int, EncodedText]], list[Result]]:
    """Returns the prompt, the answers by the place of their response, and the results of what cannot be scored."""
    prompt = text.prompt(item.question, has_image=bool(item.images), may_be_empty=item.is_raw)
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
    all_flags = tuple(dict.fromkeys((*flags, *answer.text.flags))) if answer.text.flags else flags
    if isinstance(outcome, ItemError):
        return Failed(i, answer.place, outcome, all_flags)
    return scoring.result(i, answer.place, outcome, all_flags, cached)
