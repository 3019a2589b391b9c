"""A client for code that is not async. It runs the async one on a loop of its own, in a thread of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

from medreward.clients.calls import Images, Triple
from medreward.clients.client import AsyncClient, History, OnFailure, Progress, UnreadTurns
from medreward.clients.errors import Closed
from medreward.clients.retries import Patience
from medreward.clients.score import Best, Score, Screened
from medreward.clients.transport import Tls
from medreward.types import Explain, Lane, ModelRef, Thinking, TooLong, Viewpoints

T = TypeVar("T")


class ClientOptions(TypedDict, total=False):
    """The options of AsyncClient."""

    key: str | None
    lane: Lane | str
    timeout: float
    patience: Patience
    concurrency: int
    pin: bool | str
    strict: bool
    affinity: bool
    store_images: bool
    tls: Tls | None


class ScoreOptions(TypedDict, total=False):
    """The options of a call to score."""

    weights: Mapping[str, float] | None
    too_long: TooLong | str
    thinking: Thinking | str


class RewardOptions(ScoreOptions, total=False):
    """The options of a call to score that an adapter for a trainer has a use for."""

    viewpoint: str | None
    viewpoints: Viewpoints | str


class AskOptions(RewardOptions, total=False):
    """All options of a call to score."""

    explain: Explain | str
    steps: str | Sequence[int]


class ScreenOptions(ScoreOptions, total=False):
    """The options of a call for verdicts."""

    policy: str | None
    department: str
    on_failure: OnFailure
    lane: Lane | str


class Client:
    """Has AsyncClient's methods, which block, and takes its options. Threads may share it; forked processes may not.

    A call fails with Closed once the client is closed, and in a process that was forked off after it was made.
    """

    def __init__(self, url: str | Sequence[str], **options: Unpack[ClientOptions]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="medreward-client", daemon=True)
        self._submitting = threading.Lock()
        self._open = True

        async def make() -> AsyncClient:
            return AsyncClient(url, **options)

        self._thread.start()
        try:
            self._client = self._run(make())
        except BaseException:
            self._stop()
            raise

    def score(
        self,
        image: Images,
        question: str,
        responses: Sequence[str],
        *,
        history: History = (),
        department: str = "",
        **options: Unpack[AskOptions],
    ) -> list[Score]:
        how: dict[str, Any] = {"history": history, "department": department, **options}
        return self._run(self._client.score(image, question, responses, **how))

    def score_many(
        self,
        triples: Iterable[Triple | tuple[Images, str, str]],
        *,
        progress: Progress | None = None,
        unread_turns: UnreadTurns = "send",
        **options: Unpack[AskOptions],
    ) -> list[Score]:
        """`progress` is called in the client's own thread, and may not call the client."""
        return self._run(self._client.score_many(triples, progress=progress, unread_turns=unread_turns, **options))

    def best(
        self,
        image: Images,
        question: str,
        responses: Sequence[str],
        *,
        history: History = (),
        viewpoint: str | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Best:
        return self._run(self._client.best(image, question, responses, history=history, viewpoint=viewpoint, **options))

    def screen(
        self,
        image: Images,
        question: str,
        responses: Sequence[str],
        *,
        history: History = (),
        **options: Unpack[ScreenOptions],
    ) -> list[Screened]:
        return self._run(self._client.screen(image, question, responses, history=history, **options))

    def submit(
        self,
        triples: Iterable[Triple | tuple[Images, str, str]],
        *,
        unread_turns: UnreadTurns = "send",
        **options: Unpack[AskOptions],
    ) -> Future[list[Score]]:
        """Returns at once, with the future of what `score_many` returns: for code with an event loop of its own."""
        return self._submit(self._client.score_many(triples, unread_turns=unread_turns, **options))

    def model(self) -> ModelRef:
        return self._run(self._client.model())

    def limits(self) -> Mapping[str, float]:
        return self._run(self._client.limits())

    @property
    def pin(self) -> bool | str:
        return self._client.pin

    @property
    def served_by(self) -> ModelRef | None:
        return self._client.served_by

    @property
    def fingerprint(self) -> str | None:
        return self._client.fingerprint

    def close(self) -> None:
        """Closes the client. Calls of other threads that are under way end with Closed."""

        async def end() -> None:
            running = asyncio.all_tasks() - {asyncio.current_task()}
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await self._client.close()

        with contextlib.suppress(Closed):
            ending = self._submit(end(), last=True)
            ending.result()
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = self._submit(work)
        try:
            return future.result()
        except CancelledError:
            raise Closed("the client was closed while this call was under way") from None
        except BaseException:
            future.cancel()
            raise

    def _submit(self, work: Coroutine[Any, Any, T], last: bool = False) -> Future[T]:
        usable = self._thread.is_alive() and self._thread is not threading.current_thread()
        with self._submitting if usable else contextlib.nullcontext():
            if usable and self._open:
                self._open = not last
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise Closed(
            "this client cannot be used: it is closed, was made in another process, or is called by its own callback"
        )

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
