"""The client. It sends an image once, joins responses into groups, tries again within a budget and keeps to one
model.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from medreward.clients.calls import (
    FORGETTINGS,
    Group,
    Images,
    Triple,
    group_by_question,
    home_of,
    load_aside,
    of_call_size,
    pack,
)
from medreward.clients.errors import NotScored, Refused, VersionChanged
from medreward.clients.images import Unreadable
from medreward.clients.retries import Patience, RetryBudget
from medreward.clients.score import Best, Reply, Score, Screened, ScreenRequest
from medreward.clients.servers import open_servers
from medreward.clients.transport import Tls, Transport
from medreward.clients.tries import Tries, fill, is_unfinished
from medreward.errors import Code
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
        self._slots = asyncio.Semaphore(concurrency)
        self._strict = strict
        self._stores = store_images
        self._reading: dict[str, bool] = {}  # by fingerprint, whether the model reads turns
        self._servers = open_servers(url, concurrency, timeout, key, tls)
        self._tries = Tries(self._servers, RetryBudget(patience), pin)
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
            given = await self._tries.insist("", lambda server: server.transport.weights(viewpoint))
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
            return await self._tries.insist(
                home_of(request.items[0]) if items else "", lambda server: self._tries.reply(request, None, server)
            )

    async def model(self) -> ModelRef:
        """Returns what the server serves now."""
        return await self._tries.insist("", lambda server: server.transport.model())

    async def limits(self) -> Mapping[str, float]:
        """Returns every limit of the server by its name. `item_turns` is 0 where its model reads no turns before a
        question, and `item_images` is 1 where it reads one image at a time."""
        return await self._tries.insist("", lambda server: server.transport.limits())

    async def pin_model(self) -> ModelRef:
        """Returns what the server serves now, and pins this client to it."""
        model = await self.model()
        self._tries.fingerprint = model.fingerprint
        return model

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the model that this client is pinned to; None before the first answer."""
        return self._tries.fingerprint

    @property
    def pin(self) -> bool | str:
        """The option `pin` as it was given."""
        return self._tries.pin

    @property
    def served_by(self) -> ModelRef | None:
        """The model that gave the last answer; None before the first."""
        return self._tries.served_by

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
                await self._tries.finish(call, request, scores)
            advance(responses)

        advance(sum(_refuse_unsendable(group, scores) for group in groups))
        await _all(run(call) for call in pack(filter(is_unfinished, groups), self._affinity))
        return scores

    def _strictly(self, scores: list[Score]) -> list[Score]:
        for place, score in enumerate(scores if self._strict else ()):
            if score.error:
                raise NotScored(score.error, f"response {place}: {score.message}")
        return scores

    async def _reads_turns(self) -> bool:
        """Returns whether the server takes turns before a question. It is asked once for each model that served."""
        served = self._tries.served_by.fingerprint if self._tries.served_by else ""
        if served not in self._reading:
            reads = bool((await self.limits()).get("item_turns", 0))
            if not reads and False not in self._reading.values():
                log.warning("the server's model reads no turns before a question: they are left out")
            self._reading[served] = reads
        return self._reading[served]


async def _all(runs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs them side by side. The first exception ends the others and is raised."""
    tasks = [asyncio.create_task(run) for run in runs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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


def _refuse_unsendable(group: Group, scores: list[Score]) -> int:
    """Gives an error to each response that no call could carry; returns how many these are."""
    before = len(group.left)
    unreadable = [image for image in group.images if isinstance(image, Unreadable)]
    if unreadable:
        fill([group], scores, Refused(Code.IMAGE_INVALID, unreadable[0].reason, retryable=False))
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
