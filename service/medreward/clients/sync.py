"""The same client for code that is not async: the async one, on a loop of its own in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from medreward.clients.client import AsyncClient, Progress, Triple
from medreward.clients.images import ImageLike
from medreward.clients.score import Score
from medreward.types import ModelRef

T = TypeVar("T")


class Client:
    """AsyncClient's methods, blocking; takes the same arguments. Safe to share among threads."""

    def __init__(self, url: str, **how: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="medreward-client", daemon=True)
        self._thread.start()
        self._client = self._run(_made(url, how))

    def score(self, image: ImageLike, question: str, responses: Sequence[str], **how: Any) -> list[Score]:
        return self._run(self._client.score(image, question, responses, **how))

    def score_many(
        self,
        triples: Iterable[Triple | tuple[ImageLike, str, str]],
        *,
        weights: Mapping[str, float] | None = None,
        progress: Progress | None = None,
        **how: Any,
    ) -> list[Score]:
        return self._run(self._client.score_many(triples, weights=weights, progress=progress, **how))

    def model(self) -> ModelRef:
        return self._run(self._client.model())

    @property
    def fingerprint(self) -> str | None:
        return self._client.fingerprint

    def close(self) -> None:
        if self._thread.is_alive():
            self._run(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


async def _made(url: str, how: dict[str, Any]) -> AsyncClient:
    return AsyncClient(url, **how)
