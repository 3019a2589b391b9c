"""What the adapters of all trainers share: one client a process, and what an answer becomes that has no score."""

import asyncio
import concurrent.futures
import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, Unpack

from medreward.clients.calls import Triple
from medreward.clients.errors import NotScored, Refused
from medreward.clients.retries import Patience
from medreward.clients.score import Score
from medreward.clients.sync import Client, ClientOptions, RewardOptions, ScoreOptions
from medreward.errors import RETRYABLE, Code
from medreward.types import DIMENSIONS, Thinking, TooLong

#: What becomes of a response that could not be scored: NotScored is raised, or a number stands in. With "retry" the
#: client waits without end for what may pass, and raises the rest.
OnError: TypeAlias = Literal["raise", "retry"] | float

WAITING_S: Final = 60.0  # between two lines that say that no answer is there yet

log = logging.getLogger(__name__)

#: One a process: a client does not survive a fork, and a trainer may send its function to a process anew for each call.
_clients: dict[tuple[Any, ...], Client] = {}

T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Reward:
    """What a trainer gets for a response. With `filled`, each number is the one that `on_error` names."""

    value: float
    logits: Mapping[str, float]  # of all six dimensions; NaN for one that the model has not
    overall: float  # the score of that dimension, from 0 to 1; NaN where the model has it not
    filled: bool = False


class SourceOptions(ClientOptions, ScoreOptions, total=False):
    """What every adapter takes beside the server's URL: what RewardSource takes."""

    viewpoint: str | None
    on_error: OnError


class RewardSource:
    """Asks a server for rewards. It can be sent to another process, where it makes a client of its own.

    `server` is a URL, with Client's options beside it, or a Client. Whatever `on_error` says, a wrong URL, a wrong key,
    another model than before, and a model that lacks a dimension with a weight raise an error: they are no accidents
    of a single response.
    """

    def __init__(
        self,
        server: str | Client,
        *,
        weights: Mapping[str, float] | None = None,
        viewpoint: str | None = None,
        on_error: OnError = "raise",
        too_long: TooLong | str = TooLong.ERROR,
        thinking: Thinking | str = Thinking.KEEP,
        **options: Unpack[ClientOptions],
    ) -> None:
        if on_error not in ("raise", "retry") and not _is_finite(on_error):
            raise ValueError(f'on_error is {on_error!r}: it must be "raise", "retry" or a finite number')
        if options and not isinstance(server, str):
            raise TypeError(f"a Client has its own options already: give {', '.join(options)} where it is made")
        if on_error == "retry" and isinstance(server, str):
            options = {"patience": Patience(seconds=math.inf), **options}
        self.filled = 0  # responses, so far in this process
        self._server = server
        self._on_error = on_error
        self._options = options
        if weights and viewpoint is not None:
            raise ValueError("weights and viewpoint exclude each other: a viewpoint is a set of weights")
        self._how: RewardOptions = {"weights": weights, "too_long": TooLong(too_long), "thinking": Thinking(thinking)}
        if viewpoint is not None:
            self._how["viewpoint"] = viewpoint

    @property
    def client(self) -> Client:
        """The client of this process."""
        if not isinstance(self._server, str):
            return self._server
        key = os.getpid(), self._server, *sorted(self._options.items())
        if key not in _clients:
            made = Client(self._server, **self._options)
            if _clients.setdefault(key, made) is not made:  # another thread was faster
                made.close()
        return _clients[key]

    def rewards(self, asked: Sequence[Triple | Score], within: float = math.inf) -> list[Reward]:
        """Returns a reward for each, in order. A Score stands for what is wrong already before the server is asked.

        What is not scored `within` that many seconds has the error `deadline`. Raises NotScored as `on_error` says.
        """
        future = self._asked(asked)
        waited = 0.0
        while waited < within and not future.done():
            pause = min(WAITING_S, within - waited)
            concurrent.futures.wait([future], pause)
            waited += pause
            self._say_waiting(future, len(asked))
        if not future.done():
            future.cancel()
            late = Score(error=Code.DEADLINE, message=f"the server gave no answer within {within:g} s")
            return self._rewards([late] * len(asked))
        return self._rewards(_put_together(asked, future.result()))

    async def rewards_async(self, asked: Sequence[Triple | Score]) -> list[Reward]:
        """Returns what `rewards` returns, without blocking the running event loop."""
        future = asyncio.wrap_future(self._asked(asked))
        try:
            while not future.done():
                await asyncio.wait([future], timeout=WAITING_S)
                self._say_waiting(future, len(asked))
        finally:
            future.cancel()
        return self._rewards(_put_together(asked, future.result()))

    def _asked(self, asked: Sequence[Triple | Score]) -> Future[list[Score]]:
        triples = [one for one in asked if isinstance(one, Triple)]
        return self.client.submit(triples, unread_turns="leave_out", **self._how)

    def _say_waiting(self, future: Future[Any] | asyncio.Future[Any], count: int) -> None:
        if not future.done():
            log.warning("no answer for %d responses yet: %s is asked again and again", count, self._server)

    def _rewards(self, scores: Sequence[Score]) -> list[Reward]:
        causes = Counter(score.error for score in scores if score.error)
        if causes:
            first = next(score for score in scores if score.error)
            check_reached(self.client, scores)
            if isinstance(self._on_error, str):
                raise NotScored(first.error or "", f"{causes.total()} of {len(scores)} responses: {first.message}")
            self.filled += causes.total()
            counted = ", ".join(f"{code} {count}" for code, count in causes.most_common())
            message = "%d of %d responses not scored: %s; %s stands in for their rewards (%d so far)"
            log.warning(message, causes.total(), len(scores), counted, self._on_error, self.filled)
        return [self._reward(score) for score in scores]

    def _reward(self, score: Score) -> Reward:
        if score.error:
            number = float(self._on_error)
            return Reward(number, dict.fromkeys(DIMENSIONS, number), number, filled=True)
        if score.reward is None or score.logits is None or score.scores is None:
            raise ValueError("the model lacks a dimension that has a weight: give weights for those that it has")
        logits = {dimension: _number(score.logits[dimension]) for dimension in DIMENSIONS}
        return Reward(score.reward, logits, _number(score.scores["overall"]))


def source_of(settings: Mapping[str, Any]) -> RewardSource:
    """Returns the source that a trainer's configuration describes.

    It has `url`, and beside it what RewardSource takes; `patience` is a number of seconds there. Raises ValueError
    where there is no `url`.
    """
    options = dict(settings)
    if "url" not in options:
        raise ValueError(
            "the configuration names no MedReward server: give it `url`, for instance http://127.0.0.1:8000"
        )
    if "patience" in options:
        options["patience"] = Patience(seconds=float(options["patience"]))
    return RewardSource(options.pop("url"), **options)


class LastBatch(Generic[K, T]):
    """What was answered last: functions that are called one after the other with the same batch share one call.

    A function that asks again for the same batch begins a new step, which gets an answer of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[K, T] | None = None
        self._asked_by: set[str] = set()

    def answer(self, function: str, batch: Callable[[], K], ask: Callable[[K], T]) -> T:
        """Returns what `ask` returns for the batch. What `batch` or `ask` raises is raised, and nothing is kept."""
        with self._lock:
            key = batch()
            if self._last is None or self._last[0] != key or function in self._asked_by:
                self._last = key, ask(key)
                self._asked_by = set()
            self._asked_by.add(function)
            return self._last[1]


def check_reached(client: Client, scores: Sequence[Score]) -> None:
    """Raises Refused where the server, or what is taken for one, never gave a score, whatever was asked."""
    ours = frozenset(Code) - RETRYABLE  # errors whose reason is what was asked
    if scores and client.served_by is None and all(score.error and score.error not in ours for score in scores):
        raise Refused(scores[0].error or "", f"the server gave no score at all yet: {scores[0].message}", False)


def _put_together(asked: Sequence[Triple | Score], answers: Sequence[Score]) -> list[Score]:
    left: Iterator[Score] = iter(answers)
    return [one if isinstance(one, Score) else next(left) for one in asked]


def _number(logit: float | None) -> float:
    return math.nan if logit is None else logit


def _is_finite(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
