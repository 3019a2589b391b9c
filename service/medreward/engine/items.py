"""Takes one item through the engine: check, encode, look up, admit, decode, queue, score."""

import asyncio
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from medreward.backends.base import CostModel, HeadOutputs
from medreward.encoding.sentences import Span, without
from medreward.encoding.text import EncodedText, TextEncoder
from medreward.engine.checks import check_item
from medreward.engine.images.fetch import Allowance
from medreward.engine.images.pictures import Pictures
from medreward.engine.images.resolve import ImageFile, Images
from medreward.engine.images.slots import Picture
from medreward.engine.model import Model
from medreward.engine.queue.flights import Flight, Flights, Landed, flight_id, prompt_digest
from medreward.engine.queue.scheduler import GroupKey, Scheduler
from medreward.engine.scoring import Scoring, contribution
from medreward.errors import ItemError
from medreward.types import Clock, Explain, Failed, Flag, Item, Options, Result, ScoreRequest, Timings

QUICK_CHARS: Final = 20_000  # of a request: tokenised within a few milliseconds


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request under way: its deadline, how logits of the model and of its experts become scores, its timings, what it
    may still fetch, and the SHA-256 of each image that was opened, by the item's place."""

    request: ScoreRequest
    deadline: float
    scoring: Scoring
    timings: Timings
    allowance: Allowance
    opened: dict[int, str] = field(default_factory=dict)
    of_experts: Mapping[str, Scoring] = field(default_factory=dict)  # by expert, each of which has its own calibration


@dataclass(frozen=True, slots=True)
class Branch:
    """An answer that is scored beside that of a response, because it says something about a stretch of the response."""

    stretch: Span
    text: EncodedText | ItemError


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as token ids, with its branches: for each sentence, the answer without it."""

    place: int  # among the item's responses
    text: EncodedText
    branches: tuple[Branch, ...] | None = None  # None where none are asked for, or the response was cut

    def texts(self) -> list[EncodedText]:
        """Returns all that is to be scored: the answer itself, then those of its branches that could be encoded."""
        branches = [branch.text for branch in self.branches or ()]
        return [self.text, *(text for text in branches if isinstance(text, EncodedText))]


#: What came of one triple, and whether it was known before.
End = tuple[HeadOutputs | ItemError, bool]


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
        is_long = chars * len(request.items) > QUICK_CHARS or request.options.explain is not Explain.NONE
        prompt, answers, results = await asyncio.to_thread(encode) if is_long else encode()
        file = await self._images.open(item.images[0], request.tenant, context.allowance) if item.images else None
        if file:
            context.opened[i] = file.digest
        expert = self._model.manifest.expert_of(item.department)
        scoring = context.of_experts.get(expert, context.scoring)
        key = GroupKey(request.lane, request.tenant, file.digest if file else "", prompt_digest(prompt.ids), expert)
        flags = prompt.flags if file else (Flag.NO_IMAGE, *prompt.flags)
        if item.is_raw:
            flags = (*flags, Flag.RAW_TEXT)
        texts = [text for answer in answers for text in answer.texts()]
        ends = iter(await self._ends(key, prompt.ids, file, texts, context))
        results += [_result(i, answer, ends, flags, scoring) for answer in answers]
        return sorted(results, key=lambda result: result.response)

    async def _ends(
        self,
        key: GroupKey,
        prompt: Sequence[int],
        file: ImageFile | None,
        texts: Sequence[EncodedText],
        context: RequestContext,
    ) -> list[End]:
        """Returns what came of each text of one group, in order: as it is known, or from a flight.

        Fails with an ItemError as `_fly` does.
        """
        triples = [(flight_id(key, text.ids), text.ids) for text in texts]
        known = [self._flights.known(id_) for id_, _ in triples]
        unknown = [triple for triple, outcome in zip(triples, known, strict=True) if outcome is None]
        landed = iter(await self._fly(key, prompt, file, unknown, context) if unknown else ())
        return [(next(landed).outcome, False) if outcome is None else (outcome, True) for outcome in known]

    async def _fly(
        self,
        key: GroupKey,
        prompt: Sequence[int],
        file: ImageFile | None,
        answers: Sequence[tuple[str, Sequence[int]]],
        context: RequestContext,
    ) -> list[Landed]:
        """Puts the answers, each with the id of its triple, on flights, and returns how these landed, in order.

        Fails with an ItemError when the answers are not admitted or the image cannot be decoded.
        """
        deadline, timings = context.deadline, context.timings
        costs = [self._cost.answer(len(prompt), len(ids)) for _, ids in answers]
        # The image counts at the size at which the model sees it.
        pixels = self._model.image.of(file.header.width, file.header.height).pixels if file else 0
        costs[0] += self._cost.group(len(prompt), pixels)
        reserved = sum(costs)
        self._scheduler.admit(reserved, key.lane, self._clock(), deadline)
        flights: list[Flight] = []
        picture: Picture | None = None
        try:
            picture = await self._hold(file, key, context) if file else None
            for (id_, ids), cost in zip(answers, costs, strict=True):
                flight = self._flights.joined(id_, deadline)
                if flight is None:
                    flight = Flight(key, prompt, ids, cost, self._clock(), deadline, id=id_, picture=picture)
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


def _encode(i: int, item: Item, options: Options, text: TextEncoder) -> tuple[EncodedText, list[Answer], list[Result]]:
    """Returns the prompt, the answer of each response, and the results of what cannot be scored."""
    prompt = text.prompt(item.question, has_image=bool(item.images), may_be_empty=item.is_raw)
    answers: list[Answer] = []
    failed: list[Result] = []
    for place, response in enumerate(item.responses):
        try:
            encoded = text.answer(prompt, response, options)
        except ItemError as error:
            failed.append(Failed(i, place, error))
            continue
        # Without one of its sentences, a cut response would be cut elsewhere: the difference would say nothing of it.
        explains = options.explain is Explain.SENTENCES and Flag.CUT_MIDDLE not in encoded.flags
        answers.append(Answer(place, encoded, _without_each(prompt, response, options, text) if explains else None))
    return prompt, answers, failed


def _without_each(prompt: EncodedText, response: str, options: Options, text: TextEncoder) -> tuple[Branch, ...]:
    """Returns a branch for each sentence of the response: the answer without it, or why it is none."""
    branches = []
    spans = text.sentences(response, options)
    for place, span in enumerate(spans):
        try:
            rest: EncodedText | ItemError = text.answer(prompt, without(response, spans, place), options)
        except ItemError as error:
            rest = error
        branches.append(Branch(span, rest))
    return tuple(branches)


def _result(i: int, answer: Answer, ends: Iterator[End], flags: tuple[Flag, ...], scoring: Scoring) -> Result:
    """Returns what is answered about one response. It takes from `ends` what came of each of the answer's texts."""
    outcome, cached = next(ends)
    all_flags = tuple(dict.fromkeys((*flags, *answer.text.flags))) if answer.text.flags else flags
    result = _of_outcome(i, answer.place, outcome, all_flags, scoring, cached)
    if answer.branches is None:
        return result
    without_each = [
        (branch, Failed(i, answer.place, branch.text))
        if isinstance(branch.text, ItemError)
        else (branch, _of_outcome(i, answer.place, next(ends)[0], (), scoring))
        for branch in answer.branches
    ]
    if isinstance(result, Failed):
        return result
    return replace(result, explain=tuple(contribution(*branch.stretch, result, rest) for branch, rest in without_each))


def _of_outcome(
    i: int,
    place: int,
    outcome: HeadOutputs | ItemError,
    flags: tuple[Flag, ...],
    scoring: Scoring,
    cached: bool = False,
) -> Result:
    if isinstance(outcome, ItemError):
        return Failed(i, place, outcome, flags)
    return scoring.result(i, place, outcome, flags, cached)
