"""The client. It sends an image once, joins responses into groups, tries again within a budget and keeps to one
model.
"""

import asyncio
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar, cast

from medreward.clients.calls import (
    FORGETTINGS,
    Group,
    Images,
    Triple,
    group_by_question,
    halves,
    home_of,
    load_aside,
    of_call_size,
    pack,
)
from medreward.clients.errors import NotScored, Refused, Unreachable, VersionChanged, describe
from medreward.clients.images import File, Unreadable
from medreward.clients.retries import Attempts, Patience, RetryBudget
from medreward.clients.score import Best, Reply, Score, Screened, ScreenRequest
from medreward.clients.servers import Server, Servers
from medreward.clients.transport import Tls, Transport
from medreward.errors import RETRYABLE, Code
from medreward.ranking import ranking
from medreward.types import (
    DIMENSIONS,
    Explain,
    Item,
    Lane,
    ModelRef,
    Options,
    ScoreRequest,
    Steps,
    Thinking,
    TooLong,
    Turn,
    Viewpoints,
    step_ends,
)

KNOWN_IMAGES: Final = 100_000
INTERNAL_TRIES: Final = 3  # a fault of the server may pass, but is not waited out

#: Refusals of a call that one of its responses may be the reason for.
ABOUT_CONTENT: Final = frozenset({Code.INVALID_FIELD, Code.TOO_MANY, Code.BODY_TOO_LARGE})

T = TypeVar("T")
Progress = Callable[[int, int], None]
#: Turns before a question, each with a role and a content: a text, or a list of {"text": …} and {"image": place}.
History: TypeAlias = Sequence[Mapping[str, Any] | Turn]
OnFailure = Literal["raise", "unscored"]
UnreadTurns = Literal["send", "leave_out"]

log = logging.getLogger(__name__)


class AsyncClient:
    """Scores over REST (`http://host:8000`) or gRPC (`grpc://host:8001`); with https and grpcs over TLS.

    `url` may name several servers, as a list or with commas between them. Each image then belongs to one of them, which
    gets all calls about it; a server that is dead, full or much slower than the others gets none until it is back.

    A response that cannot be scored gives a Score without numbers that says why; with `strict` it raises NotScored.
    A server that cannot be reached at all is waited for if it has answered before, otherwise Unreachable is raised.
    With `pin` (a fingerprint, or True for the first one seen) another model behind the URL raises VersionChanged.
    With `affinity` a call carries one image and its hash as `X-Affinity-Key`, for a balancer that hashes.
    With `store_images` false an image travels with every call about it: one trip less where each is asked about once.
    A client belongs to one event loop. `url` may also be a transport, which the client then closes.
    """

    def __init__(
        self,
        url: str | Sequence[str] | Transport,
        *,
        key: str | None = None,
        lane: Lane | str = Lane.BULK,
        timeout: float = 60.0,
        patience: Patience = Patience(),
        concurrency: int = 16,
        pin: bool | str = True,
        strict: bool = False,
        affinity: bool = False,
        store_images: bool = True,
        tls: Tls | None = None,
    ) -> None:
        self._lane = Lane(lane)
        self._timeout = timeout
        self._budget = RetryBudget(patience)
        self._slots = asyncio.Semaphore(concurrency)
        self._pin = pin
        self._served_by: ModelRef | None = None
        self._reached = False
        self._fingerprint = pin if isinstance(pin, str) else None
        self._strict = strict
        self._stores = store_images
        self._reading: dict[str, bool] = {}  # by fingerprint, whether the model reads turns
        urls = _urls(url) if isinstance(url, str | Sequence) else None
        self._servers = Servers(
            {_without_password(each): _transport(each, concurrency, timeout, key, tls) for each in urls}
            if urls
            else {"the transport": cast(Transport, url)}
        )
        self._affinity = affinity or self._servers.several

    async def score(
        self,
        image: Images,
        question: str,
        responses: Sequence[str],
        *,
        weights: Mapping[str, float] | None = None,
        history: History = (),
        too_long: TooLong | str = TooLong.ERROR,
        thinking: Thinking | str = Thinking.KEEP,
        explain: Explain | str = Explain.NONE,
        steps: str | Sequence[int] = Steps.NONE,
        viewpoint: str | None = None,
        viewpoints: Viewpoints | str = Viewpoints.NONE,
        department: str = "",
    ) -> list[Score]:
        """Returns a Score for each response to one question about an image, a list of images, or None.

        The `history` may show images by their place in that list; the others stand before the question.
        """
        if isinstance(responses, str):
            raise TypeError("responses is a list of texts, not one text")
        request = self._request(weights, too_long, thinking, explain, steps, viewpoint, viewpoints)
        turns, answers = _turns(history), list(enumerate(responses))
        groups = of_call_size(await load_aside(image), question, answers, turns, department)
        return self._strictly(await self._score(list(groups), len(responses), request, None))

    async def score_many(
        self,
        triples: Iterable[Triple | tuple[Images, str, str]],
        *,
        weights: Mapping[str, float] | None = None,
        too_long: TooLong | str = TooLong.ERROR,
        thinking: Thinking | str = Thinking.KEEP,
        explain: Explain | str = Explain.NONE,
        steps: str | Sequence[int] = Steps.NONE,
        viewpoint: str | None = None,
        viewpoints: Viewpoints | str = Viewpoints.NONE,
        unread_turns: UnreadTurns = "send",
        progress: Progress | None = None,
    ) -> list[Score]:
        """Returns a Score for each triple, in order. Triples that share images, turns and question travel as one group.

        A server whose model reads no turns refuses triples that have some; with `unread_turns="leave_out"` it is asked
        without them, and one warning is logged. `progress` is called with (done, all) after each call to the server.
        """
        request = self._request(weights, too_long, thinking, explain, steps, viewpoint, viewpoints)
        listed = [triple if isinstance(triple, Triple) else Triple(*triple) for triple in triples]
        if unread_turns == "leave_out" and any(triple.history for triple in listed) and not await self._reads_turns():
            listed = [replace(triple, history=()) for triple in listed]
        return self._strictly(await self._score(await group_by_question(listed), len(listed), request, progress))

    async def best(
        self,
        image: Images,
        question: str,
        responses: Sequence[str],
        *,
        weights: Mapping[str, float] | None = None,
        history: History = (),
        too_long: TooLong | str = TooLong.ERROR,
        thinking: Thinking | str = Thinking.KEEP,
        viewpoint: str | None = None,
    ) -> Best:
        """Returns which of the responses is the best, their order, and how sure the model is of the first.

        Raises ValueError where a weight is on a dimension that the model has not: then there is no reward to rank by.
        """
        scores = await self.score(
            image,
            question,
            responses,
            weights=weights,
            history=history,
            too_long=too_long,
            thinking=thinking,
            viewpoint=viewpoint,
        )
        if any(score.reward is None and not score.error for score in scores):
            raise ValueError("a weight is on a dimension that the model has not, so that there is no reward to rank by")
        given = weights or {}
        if len(scores) > 1 and not given:
            given = await self._insist("", lambda server: server.transport.weights(viewpoint))
        logits = [None if score.logits is None else tuple(map(score.logits.get, DIMENSIONS)) for score in scores]
        found = ranking([score.reward for score in scores], logits, given)
        return Best(
            response=responses[found.order[0]] if len(found.unscored) < len(scores) else None,
            scores=tuple(scores),
            order=found.order,
            ties=found.ties,
            unscored=found.unscored,
            first_beats_second=found.first_beats_second,
            by_dimension=dict(zip(DIMENSIONS, found.by_dimension, strict=True)) if found.by_dimension else None,
        )

    async def screen(
        self,
        image: Images,
        question: str,
        responses: Sequence[str],
        *,
        policy: str | None = None,
        department: str = "",
        on_failure: OnFailure = "raise",
        lane: Lane | str = Lane.INTERACTIVE,
        weights: Mapping[str, float] | None = None,
        history: History = (),
        too_long: TooLong | str = TooLong.ERROR,
        thinking: Thinking | str = Thinking.KEEP,
    ) -> list[Screened]:
        """Returns a verdict on each response, by a policy of the server (by default, the one that it has as default).

        A response that the server cannot score is unscored. Where the server itself gives no verdict after all tries,
        this raises what `score` raises, or NotScored; with `on_failure="unscored"` each response concerned is unscored
        instead, and its `error` says why. No failure allows a response.
        """
        if isinstance(responses, str):
            raise TypeError("responses is a list of texts, not one text")
        if on_failure not in ("raise", "unscored"):
            raise ValueError(f"on_failure={on_failure!r} is wrong: give 'raise' or 'unscored'")
        asked = self._request(weights, too_long, thinking)
        request = ScreenRequest(
            "", (), asked.weights, asked.options, Lane(lane), asked.deadline_s, policy=policy, department=department
        )
        groups = of_call_size(await load_aside(image), question, list(enumerate(responses)), _turns(history))
        try:
            scores = await self._score(list(groups), len(responses), request, None)
        except (Refused, VersionChanged) as error:
            if on_failure == "raise":
                raise
            code = error.code if isinstance(error, Refused) else Code.VERSION_CHANGED
            scores = [Score(error=code, message=str(error))] * len(responses)
        return [_screened(place, score, on_failure) for place, score in enumerate(scores)]

    async def ask(
        self,
        items: Sequence[Item],
        *,
        weights: Mapping[str, float] | None = None,
        too_long: TooLong | str = TooLong.ERROR,
        thinking: Thinking | str = Thinking.KEEP,
        explain: Explain | str = Explain.NONE,
        steps: str | Sequence[int] = Steps.NONE,
        viewpoint: str | None = None,
        viewpoints: Viewpoints | str = Viewpoints.NONE,
    ) -> Reply:
        """Returns the server's reply to one call, which is sent as it stands: nothing is stored, joined or split.

        Raises Refused where the server refuses the call and another try would not mend it.
        """
        request = replace(
            self._request(weights, too_long, thinking, explain, steps, viewpoint, viewpoints), items=tuple(items)
        )
        async with self._slots:
            return await self._insist(
                home_of(request.items[0]) if items else "", lambda server: self._reply(request, None, server)
            )

    async def model(self) -> ModelRef:
        """Returns what the server serves now."""
        return await self._insist("", lambda server: server.transport.model())

    async def limits(self) -> Mapping[str, float]:
        """Returns every limit of the server by its name. `item_turns` is 0 where its model reads no turns before a
        question, and `item_images` is 1 where it reads one image at a time."""
        return await self._insist("", lambda server: server.transport.limits())

    async def pin_model(self) -> ModelRef:
        """Returns what the server serves now, and pins this client to it."""
        model = await self.model()
        self._fingerprint = model.fingerprint
        return model

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the model that this client is pinned to; None before the first answer."""
        return self._fingerprint

    @property
    def pin(self) -> bool | str:
        """The option `pin` as it was given."""
        return self._pin

    @property
    def served_by(self) -> ModelRef | None:
        """The model that gave the last answer; None before the first."""
        return self._served_by

    async def close(self) -> None:
        """Closes all connections. A closed client cannot be used again."""
        await self._servers.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _request(
        self,
        weights: Mapping[str, float] | None,
        too_long: TooLong | str,
        thinking: Thinking | str,
        explain: Explain | str = Explain.NONE,
        steps: str | Sequence[int] = Steps.NONE,
        viewpoint: str | None = None,
        viewpoints: Viewpoints | str = Viewpoints.NONE,
    ) -> ScoreRequest:
        if weights and viewpoint is not None:
            raise ValueError("weights and viewpoint exclude each other: a viewpoint is a set of weights")
        for name, weight in (weights or {}).items():
            if name not in DIMENSIONS or not math.isfinite(weight):
                dimensions = ", ".join(DIMENSIONS)
                raise ValueError(f"the weight {name}={weight} is wrong: give finite numbers for some of {dimensions}")
        options = Options(
            TooLong(too_long), Thinking(thinking), Explain(explain), step_ends(steps), Viewpoints(viewpoints)
        )
        return ScoreRequest("", (), weights, options, self._lane, self._timeout, viewpoint=viewpoint)

    async def _score(
        self, groups: list[Group], count: int, request: ScoreRequest, progress: Progress | None
    ) -> list[Score]:
        scores = [Score(error=Code.INTERNAL, message="not asked")] * count
        for group in groups:
            # With affinity each image would be stored on the server of its own hash, and only one gets the call.
            if not self._stores or (self._affinity and len(group.files) > 1):
                group.forgotten = FORGETTINGS
        done = 0

        def advance(responses: int) -> None:
            nonlocal done
            done += responses
            if progress and responses:
                progress(done, count)

        async def run(call: list[Group]) -> None:
            responses = sum(len(group.left) for group in call)
            async with self._slots:
                await self._finish(call, request, scores)
            advance(responses)

        advance(sum(_refuse_unsendable(group, scores) for group in groups))
        await _all(run(call) for call in pack(filter(_unfinished, groups), self._affinity))
        return scores

    def _strictly(self, scores: list[Score]) -> list[Score]:
        for place, score in enumerate(scores if self._strict else ()):
            if score.error:
                raise NotScored(score.error, f"response {place}: {score.message}")
        return scores

    # one call

    async def _reads_turns(self) -> bool:
        """Returns whether the server takes turns before a question. It is asked once for each model that served."""
        served = self._served_by.fingerprint if self._served_by else ""
        if served not in self._reading:
            reads = bool((await self.limits()).get("item_turns", 0))
            if not reads and False not in self._reading.values():
                log.warning("the server's model reads no turns before a question: they are left out")
            self._reading[served] = reads
        return self._reading[served]

    async def _finish(self, call: list[Group], request: ScoreRequest, scores: list[Score]) -> None:
        """Tries until every response of the call has its score, or an error that another try would not mend.

        Raises a refusal that is not about the content of the call, and one by a server that was never there.
        """
        attempts = Attempts(self._budget)
        while call := list(filter(_unfinished, call)):
            retry_after = None
            home, ask = home_of(call[0]), partial(self._attempt, call, request, scores)
            try:
                if await self._try(home, ask):
                    continue
            except Refused as refused:
                if self._is_nobody_there(refused, attempts):
                    raise
                _fill(call, scores, refused)
                if not refused.retryable:
                    if refused.code not in ABOUT_CONTENT:
                        raise
                    for half in halves(call) or ():  # for only one response may be the reason
                        await self._finish(half, request, scores)
                    return
                if refused.code == Code.INTERNAL and attempts.failed + 1 >= INTERNAL_TRIES:
                    return
                retry_after = self._servers.retry_after(refused)
            pause = attempts.pause(retry_after)
            if pause is None:
                return  # what is left holds the error of its last try
            await asyncio.sleep(pause)

    async def _insist(self, key: str, call: Callable[[Server], Awaitable[T]]) -> T:
        """Returns the answer of the first try that has one; raises a refusal that another try would not mend."""
        attempts = Attempts(self._budget)
        while True:
            try:
                return await self._try(key, call)
            except Refused as refused:
                pause = attempts.pause(self._servers.retry_after(refused))
                if not refused.retryable or pause is None or self._is_nobody_there(refused, attempts):
                    raise
            await asyncio.sleep(pause)

    async def _try(self, key: str, call: Callable[[Server], Awaitable[T]]) -> T:
        """Returns the answer, and notes that a server is there, whatever it answers."""
        try:
            answer = await self._servers.ask(key, call)
        except Refused as refused:
            self._reached |= not isinstance(refused, Unreachable)
            raise
        self._reached = True
        return answer

    def _is_nobody_there(self, refused: Refused, attempts: Attempts) -> bool:
        """Returns whether to stop waiting for a server. One that was there comes back; one that never was is a wrong
        URL.
        """
        waited = attempts.seconds >= self._budget.patience.start_seconds
        return isinstance(refused, Unreachable) and self._servers.are_all_gone and not self._reached and waited

    async def _attempt(self, call: list[Group], request: ScoreRequest, scores: list[Score], server: Server) -> bool:
        """Makes one try. Returns False if what is left then is better asked after a pause."""
        await self._store_images(call, scores, server)
        call = list(filter(_unfinished, call))
        if not call:
            return True
        items = tuple(group.item() for group in call)
        images = {tuple(file.sha256 for file in group.files) for group in call if group.files}
        affinity = images.pop()[0] if len(images) == 1 else None
        reply = await self._reply(replace(request, items=items), affinity, server)
        settled = [self._settle(*answered, scores, server) for answered in zip(call, reply.scores, strict=True)]
        return all(settled)

    async def _reply(self, request: ScoreRequest, affinity: str | None, server: Server) -> Reply:
        """Returns the reply to one try; raises VersionChanged where another model gave it than the pinned one."""
        # A policy is made for its model, so verdicts may come from any; only a pin that names one holds for them.
        pins = isinstance(self._pin, str) if isinstance(request, ScreenRequest) else self._pin
        request = replace(request, id=uuid.uuid4().hex, fingerprint=self._fingerprint if pins else None)
        try:
            if isinstance(request, ScreenRequest):
                reply = await server.transport.screen(request, affinity)
            else:
                reply = await server.transport.score(request, affinity)
        except Refused as refused:
            if refused.code != Code.VERSION_CHANGED:
                raise
            try:
                served = await server.transport.model()
            except Refused:
                served = None
            if served and served.fingerprint == self._fingerprint:  # of another server behind the same address
                served = None
            raise self._version_changed(served) from None
        if pins and self._fingerprint is None:
            self._fingerprint = reply.model.fingerprint
        if pins and reply.model.fingerprint != self._fingerprint:
            raise self._version_changed(reply.model)
        self._served_by = reply.model
        return reply

    def _version_changed(self, served: ModelRef | None) -> VersionChanged:
        assert self._fingerprint is not None
        pinned = describe(self._served_by) if self._served_by else self._fingerprint
        why = "the first model that answered, by pin=True" if self._pin is True else "by its option `pin`"
        accept = f"pin={served.fingerprint!r}" if served else "the new model's fingerprint as `pin`"
        message = (
            f"the server has {describe(served) if served else 'another model'} now. This client is pinned to {pinned}, "
            f"{why}. Rewards of two models are on two scales. To go on with the new one, make a client with {accept}; "
            "pin=False takes any model"
        )
        return VersionChanged(message, self._fingerprint, served)

    def _settle(self, group: Group, answers: list[Score], scores: list[Score], server: Server) -> bool:
        """Takes what is final out of what is left. Returns False if the rest needs time, and not only its image
        again.
        """
        left, group.left = group.left, []
        for (place, response), score in zip(left, answers, strict=True):
            scores[place] = score
            if score.error in RETRYABLE or (score.error == Code.IMAGE_UNKNOWN and group.stored_images):
                group.left.append((place, response))
        if group.stored_images and any(score.error == Code.IMAGE_UNKNOWN for score in answers):
            for image in group.stored_images:
                server.stored.pop(image.sha256, None)
            group.forgotten += 1
        return not any(score.error in RETRYABLE for score in answers)

    # images

    async def _store_images(self, call: list[Group], scores: list[Score], server: Server) -> None:
        """Stores each image of the call once. The refusal of an image is the error of the responses about it."""
        for group in call:
            for image in group.stored_images:
                try:
                    await self._store(image, server)
                except Refused as refused:
                    if refused.code == Code.IMAGE_TOO_LARGE:  # for the store, perhaps not for the model
                        group.forgotten = FORGETTINGS
                        break
                    if not (refused.code == Code.BODY_TOO_LARGE or refused.code.startswith("image_")):
                        raise
                    _fill([group], scores, refused)
                    group.left = []
                    break

    async def _store(self, image: File, server: Server) -> None:
        async with server.storing.setdefault(image.sha256, asyncio.Lock()):
            if image.sha256 in server.stored:
                return
            await server.transport.put_image(image.data, image.sha256)
            server.stored[image.sha256] = None
            if len(server.stored) > KNOWN_IMAGES:
                server.stored.popitem(last=False)


async def _all(runs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs them side by side. The first exception ends the others and is raised."""
    tasks = [asyncio.create_task(run) for run in runs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _urls(given: str | Sequence[str]) -> list[str]:
    """Returns the URL of each server. Raises ValueError where one is missing or named twice."""
    urls = [url.strip() for url in (given.split(",") if isinstance(given, str) else given)]
    if not urls:
        raise ValueError("no URL of a server is given")
    if len({*map(_without_password, urls)}) < len(urls):
        raise ValueError(f"the URL {given!r} names a server twice")
    return urls


def _without_password(url: str) -> str:
    scheme, _, target = url.partition("://")
    return f"{scheme}://{target.rpartition('@')[2]}"


def _transport(url: str, connections: int, timeout: float, key: str | None, tls: Tls | None) -> Transport:
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ValueError("the key has characters that no HTTP header can carry, perhaps a line break: copy it again")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    scheme, _, target = url.partition("://")
    if scheme not in ("http", "https", "grpc", "grpcs"):
        raise ValueError(f"the URL {url!r} does not begin with http://, https://, grpc:// or grpcs://")
    if not target.strip("/"):
        raise ValueError(f"the URL {url!r} names no server: write it like http://host:8000 or grpc://host:8001")
    if scheme in ("grpc", "grpcs"):
        from medreward.clients.rpc import RpcTransport

        return RpcTransport(target, timeout, headers, (tls or Tls()) if scheme == "grpcs" else None)
    from medreward.clients.rest import RestTransport

    return RestTransport(url, connections, timeout, headers, tls)


def _turns(history: History) -> tuple[Turn, ...]:
    return tuple(turn if isinstance(turn, Turn) else _turn(turn) for turn in history)


def _turn(turn: Mapping[str, Any]) -> Turn:
    """Returns the turn, whose content is a text or a list of {"text": …} and {"image": place}."""
    content = turn["content"]
    if isinstance(content, str):
        return Turn(turn["role"], content)
    return Turn(turn["role"], tuple(part["text"] if "text" in part else part["image"] for part in content))


def _screened(place: int, score: Score, on_failure: OnFailure) -> Screened:
    """Returns the server's verdict; where it gave none, raises or returns that the response is unscored."""
    if isinstance(score, Screened):
        return score
    if on_failure == "raise":
        raise NotScored(score.error or Code.INTERNAL, f"response {place}: {score.message}")
    return Screened(error=score.error or Code.INTERNAL, message=score.message, field=score.field)


def _unfinished(group: Group) -> bool:
    return bool(group.left)


def _refuse_unsendable(group: Group, scores: list[Score]) -> int:
    """Gives an error to each response that no call could carry; returns how many these are."""
    before = len(group.left)
    unreadable = [image for image in group.images if isinstance(image, Unreadable)]
    if unreadable:
        _fill([group], scores, Refused(Code.IMAGE_INVALID, unreadable[0].reason, retryable=False))
        group.left = []
    asked = [group.question, *(turn.text for turn in group.history)]
    bad = Score(error=Code.BAD_TEXT, message="the text has half of a surrogate pair, which is no Unicode text")
    for place, response in group.left:
        if not all(map(_is_unicode, (*asked, response))):
            scores[place] = bad
    group.left = [(place, response) for place, response in group.left if scores[place] is not bad]
    return before - len(group.left)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fill(call: Iterable[Group], scores: list[Score], refused: Refused) -> None:
    for group in call:
        for place, _ in group.left:
            scores[place] = Score(error=refused.code, message=refused.message, field=refused.field)
