"""Takes one item through the engine: check, encode, look up, admit, decode, queue, score."""

import asyncio
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from medreward.backends.base import CostModel
from medreward.encoding.text import EncodedText, TextEncoder
from medreward.engine.answers import Answer, End, answer_of, result_of
from medreward.engine.checks import readable
from medreward.engine.images.fetch import Allowance
from medreward.engine.images.pictures import Pictures
from medreward.engine.images.resolve import ImageFile, Images
from medreward.engine.images.slots import Picture
from medreward.engine.model import Model
from medreward.engine.queue.flights import Flight, Flights, Landed, flight_id, prompt_digest
from medreward.engine.queue.scheduler import GroupKey, Scheduler
from medreward.engine.scoring import Scoring
from medreward.errors import Code, ItemError
from medreward.settings import Settings
from medreward.types import Clock, Failed, FileSource, Flag, FrameImage, Item, Options, Result, ScoreRequest, Timings

QUICK_CHARS: Final = 20_000  # of a request: tokenised within a few milliseconds


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request under way: its deadline, how logits of the model and of its experts become scores, its timings, what it
    may still fetch, and the SHA-256 of the images that were opened, by the item's place."""

    request: ScoreRequest
    deadline: float
    scoring: Scoring
    timings: Timings
    allowance: Allowance
    opened: dict[int, tuple[str, ...]] = field(default_factory=dict)
    of_experts: Mapping[str, Scoring] = field(default_factory=dict)  # by expert, each of which has its own calibration


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
        limits: Settings,
    ) -> None:
        self._model = model
        self._limits = limits
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
        item, flags = readable(item, self._model, self._limits)
        chars = len(item.question) + sum(map(len, item.responses)) + sum(len(turn.text) for turn in item.history)
        encode = functools.partial(_encode, i, item, request.options, self._model.text)
        is_long = chars * len(request.items) > QUICK_CHARS or request.options.ask_for_more
        prompt, answers, results = await asyncio.to_thread(encode) if is_long else encode()
        opened = await self._open(item, context)
        context.opened[i] = tuple(file.sha256 for file in opened)
        files = [opened[place] for place in prompt.images]
        if len(files) > 1 and self._model.heeds_other_images:
            files = [file.among_others() for file in files]
        expert = self._model.manifest.expert_of(item.department)
        digests = ",".join(file.digest for file in files)
        key = GroupKey(request.lane, request.tenant, digests, prompt_digest(prompt.ids), expert)
        flags = (*flags, *prompt.flags) if files else (Flag.NO_IMAGE, *flags, *prompt.flags)
        if item.is_raw:
            flags = (*flags, Flag.RAW_TEXT)
        texts = [text for answer in answers for text in answer.texts()]
        ends = iter(await self._ends(key, prompt.ids, files, texts, context))
        scoring = context.of_experts.get(expert, context.scoring)
        results += [result_of(i, answer, ends, flags, scoring) for answer in answers]
        return sorted(results, key=lambda result: result.response)

    async def _open(self, item: Item, context: RequestContext) -> list[ImageFile]:
        """Returns the files of the item's images. Fails with an ItemError that names the first that is refused, and
        where they have too many pixels together."""
        files: list[ImageFile] = []
        several: dict[FileSource, ImageFile] = {}  # files of which there may be several frames
        for place, source in enumerate(item.images):
            try:
                if not isinstance(source, FrameImage):
                    files.append(await self._images.open(source, context.request.tenant, context.allowance))
                    continue
                if source.file not in several:
                    opened = await self._images.open(source.file, context.request.tenant, context.allowance)
                    several[source.file] = opened
                files.append(several[source.file].frame(source))
            except ItemError as error:
                raise _of_image(place, error) from None
        if sum(file.header.pixels for file in files) > self._limits.item_pixels:
            detail = f"the images of the item have more than {self._limits.item_pixels} pixels together"
            raise ItemError(Code.IMAGE_TOO_LARGE, detail, "images")
        return files

    async def _ends(
        self,
        key: GroupKey,
        prompt: Sequence[int],
        files: Sequence[ImageFile],
        texts: Sequence[EncodedText],
        context: RequestContext,
    ) -> list[End]:
        """Returns what came of each text of one group, in order: as it is known, or from a flight.

        Fails with an ItemError as `_fly` does.
        """
        triples = [(flight_id(key, text.ids), text.ids) for text in texts]
        known = [self._flights.known(id_) for id_, _ in triples]
        unknown = [triple for triple, outcome in zip(triples, known, strict=True) if outcome is None]
        landed = iter(await self._fly(key, prompt, files, unknown, context) if unknown else ())
        return [(next(landed).outcome, False) if outcome is None else (outcome, True) for outcome in known]

    async def _fly(
        self,
        key: GroupKey,
        prompt: Sequence[int],
        files: Sequence[ImageFile],
        answers: Sequence[tuple[str, Sequence[int]]],
        context: RequestContext,
    ) -> list[Landed]:
        """Puts the answers, each with the id of its triple, on flights, and returns how these landed, in order.

        Fails with an ItemError when the answers are not admitted or an image cannot be decoded.
        """
        deadline, timings = context.deadline, context.timings
        costs = self._cost.answers(len(prompt), [ids for _, ids in answers])
        # An image counts at the size at which the model sees it, and one in tiles by what its layout says.
        headers = [file.header for file in files]
        specs = [self._model.image.of(header.width, header.height, header.is_alone) for header in headers]
        costs[0] += self._cost.group(len(prompt), sum(spec.pixels for spec in specs), len(files))
        costs[0] += sum(spec.tokens for spec in specs)
        reserved = sum(costs)
        self._scheduler.admit(reserved, key.lane, self._clock(), deadline)
        flights: list[Flight] = []
        pictures: list[Picture] = []
        try:
            await self._hold(files, key, context, pictures)
            for (id_, ids), cost in zip(answers, costs, strict=True):
                flight = self._flights.joined(id_, deadline)
                if flight is None:
                    flight = Flight(key, prompt, ids, cost, self._clock(), deadline, id=id_, pictures=pictures)
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
            for picture in pictures:
                picture.holders -= 1
            for flight in flights:
                self._flights.leave(flight)
        landed = [flight.landed.result() for flight in flights]
        timings.queue = max(timings.queue, *(end.queue_s for end in landed))
        timings.inference = max(timings.inference, *(end.inference_s for end in landed))
        return landed

    async def _hold(
        self, files: Sequence[ImageFile], key: GroupKey, context: RequestContext, pictures: list[Picture]
    ) -> None:
        """Puts the pictures of the files into `pictures`, each with one more holder, and notes how long it took.

        Fails with an ItemError, or is cancelled, when every picture that has one more holder is in `pictures`.
        """
        if not files:
            return
        started = self._clock()
        held: dict[int, Picture] = {}

        async def hold(place: int) -> None:
            held[place] = await self._pictures.hold(files[place], key.tenant, key.lane, context.deadline)

        try:
            # With exceptions as results, gather ends when all of them have ended.
            ends = await asyncio.gather(*map(hold, range(len(files))), return_exceptions=True)
        finally:
            pictures += [held[place] for place in sorted(held)]
        for place, error in enumerate(ends):
            if isinstance(error, ItemError):
                raise _of_image(place, error)
            if error:
                raise error
        ended = self._clock()
        context.timings.decode = max(context.timings.decode, ended - started)
        if context.request.trace:
            context.request.trace.phase("decode", started, ended)


def _of_image(place: int, error: ItemError) -> ItemError:
    """Returns the error of an image as that of the item's image at this place."""
    if not place or error.field != "image":
        return error
    return ItemError(error.code, error.detail, f"images/{place}", error.retry_after, error.for_log)


def _encode(i: int, item: Item, options: Options, text: TextEncoder) -> tuple[EncodedText, list[Answer], list[Result]]:
    """Returns the prompt, the answer of each response, and the results of what cannot be scored."""
    prompt = text.prompt(item.question, may_be_empty=item.is_raw, images=len(item.images), history=item.history)
    answers: list[Answer] = []
    failed: list[Result] = []
    for place, response in enumerate(item.responses):
        try:
            answers.append(answer_of(place, prompt, response, options, text))
        except ItemError as error:
            failed.append(Failed(i, place, error))
    return prompt, answers, failed
