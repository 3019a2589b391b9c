"""The client: images sent once, groups found, retries within a budget, one model for a whole run."""

import asyncio
import hashlib
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from medreward.clients.errors import NotScored, Refused, VersionChanged
from medreward.clients.images import ImageLike, image_bytes
from medreward.clients.retries import Patience, RetryBudget, pause
from medreward.clients.score import Reply, Score
from medreward.clients.transport import Transport
from medreward.errors import RETRYABLE, Code
from medreward.types import (
    ImageSource,
    Item,
    Lane,
    ModelRef,
    Options,
    ScoreRequest,
    StoredImage,
    Thinking,
    TooLong,
    Turn,
    UrlImage,
)

CALL_ITEMS: Final = 16  # groups put into one call
CALL_RESPONSES: Final = 128
CALL_CHARS: Final = 2_000_000
KNOWN_IMAGES: Final = 100_000
INTERNAL_TRIES: Final = 3  # a fault of the server may pass, but is not waited out

Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Triple:
    """What `score_many` takes; a plain (image, question, response) tuple does as well."""

    image: ImageLike
    question: str
    response: str


@dataclass(slots=True, eq=False)
class Asked:
    """One item of a call: some responses to one question, and where their scores belong."""

    image: bytes | str | None  # a file's bytes, or a URL
    question: str
    history: tuple[Turn, ...]
    responses: list[str]
    places: list[int]
    digest: str | None = None

    def item(self, left: Sequence[int]) -> Item:
        source: tuple[ImageSource, ...] = ()
        if isinstance(self.image, str):
            source = (UrlImage(self.image),)
        elif self.digest:
            source = (StoredImage(self.digest),)
        return Item(self.question, tuple(self.responses[j] for j in left), source, self.history)


@dataclass(slots=True)
class Call:
    """Groups that travel together, and the numbers of the responses in each that have no final score yet."""

    asked: list[Asked]
    left: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = [list(range(len(asked.responses))) for asked in self.asked]


class AsyncClient:
    """Scores over REST (`http://host:8000`) or gRPC (`grpc://host:8001`).

    A response that cannot be scored gives a Score without numbers that says why; with `strict` it raises NotScored.
    With `pin` (a fingerprint, or True for the first one seen) another model behind the URL raises VersionChanged.
    With `affinity` a call carries one image and its hash as `X-Affinity-Key`, for a balancer that hashes.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        lane: Lane | str = Lane.BULK,
        timeout: float = 60.0,
        patience: Patience = Patience(),
        concurrency: int = 16,
        pin: bool | str = True,
        strict: bool = False,
        affinity: bool = False,
        tls: Any = None,
    ) -> None:
        self._lane = Lane(lane)
        self._timeout = timeout
        self._patience = patience
        self._budget = RetryBudget(patience, time.monotonic)
        self._slots = asyncio.Semaphore(concurrency)
        self._pin = pin
        self._fingerprint = pin if isinstance(pin, str) else None
        self._strict = strict
        self._affinity = affinity
        self._stored: OrderedDict[str, asyncio.Task[None]] = OrderedDict()
        self._transport = _transport(url, concurrency, timeout, key, tls)

    async def score(
        self,
        image: ImageLike,
        question: str,
        responses: Sequence[str],
        *,
        weights: Mapping[str, float] | None = None,
        history: Sequence[Mapping[str, str] | Turn] = (),
        too_long: TooLong | str = TooLong.ERROR,
        thinking: Thinking | str = Thinking.KEEP,
    ) -> list[Score]:
        """A Score for each response to one question about one image (or about none)."""
        turns = tuple(turn if isinstance(turn, Turn) else Turn(turn["role"], turn["content"]) for turn in history)
        asked = [
            Asked(await _loaded(image), question, turns, list(part), list(range(start, start + len(part))))
            for start, part in _parts(responses, CALL_RESPONSES)
        ]
        options = Options(TooLong(too_long), Thinking(thinking))
        return await self._score(asked, len(responses), weights, options, None)

    async def score_many(
        self,
        triples: Iterable[Triple | tuple[ImageLike, str, str]],
        *,
        weights: Mapping[str, float] | None = None,
        too_long: TooLong | str = TooLong.ERROR,
        thinking: Thinking | str = Thinking.KEEP,
        progress: Progress | None = None,
    ) -> list[Score]:
        """A Score for each triple, in order. Triples that share image and question travel as one group."""
        listed = [t if isinstance(t, Triple) else Triple(*t) for t in triples]
        asked = await _grouped(listed)
        options = Options(TooLong(too_long), Thinking(thinking))
        return await self._score(asked, len(listed), weights, options, progress)

    async def model(self) -> ModelRef:
        return await self._retried(self._transport.model)

    @property
    def fingerprint(self) -> str | None:
        """Of the model this client is pinned to; None before the first answer."""
        return self._fingerprint

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # one call after the other

    async def _score(
        self,
        asked: list[Asked],
        count: int,
        weights: Mapping[str, float] | None,
        options: Options,
        progress: Progress | None,
    ) -> list[Score]:
        scores = [Score(error=Code.INTERNAL, message="not asked")] * count
        request = ScoreRequest("", (), weights, options, self._lane, self._timeout)
        done = 0

        async def run(call: Call) -> None:
            nonlocal done
            async with self._slots:
                await self._score_call(call, request, scores)
            done += sum(len(asked.places) for asked in call.asked)
            if progress:
                progress(done, count)

        await _all(run(call) for call in _calls(asked, self._affinity))
        if self._strict:
            _raise_if_missing(scores)
        return scores

    async def _score_call(self, call: Call, request: ScoreRequest, scores: list[Score]) -> None:
        """Tries until every response of the call has its score, or an error that another try would not mend."""
        deadline = time.monotonic() + self._patience.seconds
        attempt = 0
        while True:
            try:
                await self._store_images(call, scores)
                if not any(call.left):
                    return
                self._settle(call, await self._ask(call, request), scores)
                if not any(call.left):
                    return
                retry_after = None
            except Refused as refused:
                if not refused.retryable or (refused.code == Code.INTERNAL and attempt + 1 >= INTERNAL_TRIES):
                    await self._give_up(call, refused, request, scores)
                    return
                _fill(call, scores, Score(error=refused.code, message=refused.message))
                retry_after = refused.retry_after
            wait = pause(attempt, retry_after) + self._budget.take()
            if time.monotonic() + wait > deadline:
                return  # what is left holds the error of its last try
            await asyncio.sleep(wait)
            attempt += 1

    async def _ask(self, call: Call, request: ScoreRequest) -> Reply:
        items = tuple(asked.item(left) for asked, left in zip(call.asked, call.left, strict=True) if left)
        digests = {asked.digest for asked in call.asked}
        affinity = call.asked[0].digest if len(digests) == 1 else None
        request = replace(request, id=uuid.uuid4().hex, items=items, fingerprint=self._fingerprint)
        try:
            reply = await self._transport.score(request, affinity)
        except Refused as refused:
            if refused.code == Code.VERSION_CHANGED:
                raise VersionChanged(f"the server no longer has {self._fingerprint}") from None
            raise
        self._check_version(reply.model)
        return reply

    def _check_version(self, model: ModelRef) -> None:
        if self._pin and self._fingerprint is None:
            self._fingerprint = model.fingerprint
        if self._pin and model.fingerprint != self._fingerprint:
            raise VersionChanged(f"the server has {model.fingerprint}, this client is pinned to {self._fingerprint}")

    def _settle(self, call: Call, reply: Reply, scores: list[Score]) -> None:
        """Takes what is final out of what is left."""
        answers = iter(reply.scores)
        for asked, left in zip(call.asked, call.left, strict=True):
            if not left:
                continue
            again = []
            for j, score in zip(left, next(answers), strict=True):
                scores[asked.places[j]] = score
                if score.error == Code.IMAGE_UNKNOWN and asked.digest and isinstance(asked.image, bytes):
                    self._stored.pop(asked.digest, None)
                    again.append(j)
                elif score.error in RETRYABLE:
                    again.append(j)
            left[:] = again

    async def _give_up(self, call: Call, refused: Refused, request: ScoreRequest, scores: list[Score]) -> None:
        """A call that is refused for good: its groups are asked one by one, for only one may be the reason."""
        if sum(map(bool, call.left)) <= 1:
            _fill(call, scores, Score(error=refused.code, message=refused.message))
            return
        for asked, left in zip(call.asked, call.left, strict=True):
            if left:
                alone = Call([asked])
                alone.left = [left]
                await self._score_call(alone, request, scores)

    # images

    async def _store_images(self, call: Call, scores: list[Score]) -> None:
        """Each image once; one that the server refuses is the error of the responses about it."""
        for asked, left in zip(call.asked, call.left, strict=True):
            if not left or not isinstance(asked.image, bytes):
                continue
            if asked.digest is None:
                asked.digest = await asyncio.to_thread(_sha256, asked.image)
            try:
                await self._store(asked.digest, asked.image)
            except Refused as refused:
                if refused.retryable:
                    raise
                for j in left:
                    scores[asked.places[j]] = Score(error=refused.code, message=refused.message)
                left.clear()

    async def _store(self, digest: str, image: bytes) -> None:
        task = self._stored.get(digest)
        if task is None:
            task = self._stored[digest] = asyncio.create_task(self._transport.put_image(image, digest))
            if len(self._stored) > KNOWN_IMAGES:
                self._stored.popitem(last=False)
        try:
            await asyncio.shield(task)
        except Refused:
            if self._stored.get(digest) is task:
                del self._stored[digest]
            raise

    async def _retried(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        deadline = time.monotonic() + self._patience.seconds
        attempt = 0
        while True:
            try:
                return await call()
            except Refused as refused:
                wait = pause(attempt, refused.retry_after) + self._budget.take()
                if not refused.retryable or time.monotonic() + wait > deadline:
                    raise
            await asyncio.sleep(wait)
            attempt += 1


async def _all(runs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs them side by side; the first exception ends the others."""
    tasks = [asyncio.create_task(run) for run in runs]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _transport(url: str, connections: int, timeout: float, key: str | None, tls: Any) -> Transport:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    scheme, _, target = url.partition("://")
    if scheme in ("grpc", "grpcs"):
        from medreward.clients.rpc import RpcTransport, credentials

        return RpcTransport(target, timeout, headers, credentials(tls) if scheme == "grpcs" else None)
    if scheme in ("http", "https"):
        from medreward.clients.rest import RestTransport

        return RestTransport(url, connections, timeout, headers, True if tls is None else tls)
    raise ValueError("the URL begins with http, https, grpc or grpcs")


async def _loaded(image: ImageLike) -> bytes | str | None:
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return image
    return image if isinstance(image, bytes) or image is None else await asyncio.to_thread(image_bytes, image)


async def _grouped(triples: Sequence[Triple]) -> list[Asked]:
    """One Asked for each (image, question), in order of first appearance, none larger than a call may be."""
    files: dict[int, bytes | str | None] = {}
    groups: dict[tuple[bytes | str | None, str], Asked] = {}
    full: list[Asked] = []
    for place, triple in enumerate(triples):
        if id(triple.image) not in files:
            files[id(triple.image)] = await _loaded(triple.image)
        key = (files[id(triple.image)], triple.question)
        group = groups.setdefault(key, Asked(key[0], triple.question, (), [], []))
        group.responses.append(triple.response)
        group.places.append(place)
        if len(group.responses) == CALL_RESPONSES:
            full.append(groups.pop(key))
    return sorted([*full, *groups.values()], key=lambda asked: asked.places[0])


def _calls(asked: Iterable[Asked], one_image: bool) -> Iterator[Call]:
    """Groups packed into calls; with `one_image` a call's groups are all about the same image."""
    packed: list[Asked] = []
    responses = chars = 0
    for group in asked:
        size = len(group.question) + sum(map(len, group.responses))
        full = len(packed) == CALL_ITEMS or responses + len(group.responses) > CALL_RESPONSES
        if packed and (full or chars + size > CALL_CHARS or (one_image and packed[-1].image != group.image)):
            yield Call(packed)
            packed, responses, chars = [], 0, 0
        packed.append(group)
        responses += len(group.responses)
        chars += size
    if packed:
        yield Call(packed)


def _parts(responses: Sequence[str], size: int) -> Iterator[tuple[int, Sequence[str]]]:
    for start in range(0, len(responses), size):
        yield start, responses[start : start + size]


def _fill(call: Call, scores: list[Score], score: Score) -> None:
    for asked, left in zip(call.asked, call.left, strict=True):
        for j in left:
            scores[asked.places[j]] = score


def _raise_if_missing(scores: Iterable[Score]) -> None:
    for score in scores:
        if score.error:
            raise NotScored(score.error, score.message or "")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
