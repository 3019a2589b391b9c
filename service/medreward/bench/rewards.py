"""A reward model behind a URL, or in this process. Both answers of a case are one group of one call."""

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from medreward.bench.answering import About, Answer, StoppedError, by_logits, unanswered
from medreward.bench.cases import Case
from medreward.clients import AsyncClient, ClientError, Patience
from medreward.errors import Code, ConfigurationError, MedRewardError
from medreward.types import DIMENSIONS, Failed, InlineImage, Item, Lane, ModelRef, Options, Scored, ScoreRequest

if TYPE_CHECKING:
    from medreward.engine.engine import Engine
    from medreward.settings import Settings

#: What another case would meet as well. A worker that is lost or slow may be so because of this very case.
FAULTS_OF_THE_SERVER: Final = frozenset({Code.OVERLOADED, Code.NOT_READY, "unreachable", "garbled"})


class Served:
    """Over REST or gRPC, pinned to the model that is there when the run begins."""

    def __init__(self, url: str, key: str | None, options: Options, concurrency: int, retry_seconds: float) -> None:
        self._url = url
        self._options = options
        self._how: dict[str, Any] = {
            "key": key,
            "concurrency": concurrency,
            "patience": Patience(retry_seconds),
            "store_images": False,
        }
        self._client: AsyncClient | None = None

    async def about(self) -> About:
        try:
            async with AsyncClient(
                self._url, key=self._how["key"], patience=Patience(0)
            ) as client:  # a wrong URL shows at once
                model = await client.model()
            self._client = AsyncClient(self._url, pin=model.fingerprint, **self._how)
        except (ClientError, ValueError) as error:
            raise ConfigurationError(f"{self._url}: {error}") from None
        return _about(model)

    async def answer(self, case: Case) -> Answer:
        assert self._client
        too_long, thinking = self._options.too_long, self._options.thinking
        try:
            both = await self._client.score(
                case.image or None, case.question, case.answers, too_long=too_long, thinking=thinking
            )
        except ClientError as error:
            raise StoppedError(f"{self._url}: {error}") from None
        for score in both:
            if score.error in FAULTS_OF_THE_SERVER or (score.error or "").startswith("http_"):
                raise StoppedError(f"{self._url}: {score.error}: {score.message}")
            if score.logits is None:
                return unanswered(score.error or Code.INTERNAL)
        a, b = ({d: (score.logits or {})[d] for d in DIMENSIONS} for score in both)
        return by_logits(a, b)

    def totals(self, predictions: list[Mapping[str, Any]]) -> dict[str, Any]:
        return {}

    async def aclose(self) -> None:
        if self._client:
            await self._client.close()


class InProcess:
    """The server's engine, without a server."""

    def __init__(self, engine: "Engine", options: Options) -> None:
        self._engine = engine
        self._options = options

    @classmethod
    async def started(cls, settings: "Settings", options: Options) -> Self:
        from prometheus_client import CollectorRegistry

        from medreward.engine.engine import Engine
        from medreward.metrics import Metrics

        engine = Engine(settings, Metrics(CollectorRegistry()))
        await engine.start()
        return cls(engine, options)

    async def about(self) -> About:
        return _about(self._engine.serving.ref)

    async def answer(self, case: Case) -> Answer:
        item = Item(case.question, case.answers, (InlineImage(case.image),) if case.image else ())
        request = ScoreRequest(uuid.uuid4().hex, (item,), options=self._options, lane=Lane.BULK)
        try:
            results = (await self._engine.score(request)).results
        except MedRewardError as error:
            if error.code in FAULTS_OF_THE_SERVER:
                raise StoppedError(f"{error.code}: {error.detail}") from None
            return unanswered(error.code)
        for result in results:
            if isinstance(result, Failed):
                return unanswered(result.error.code)
        a, b = (dict(zip(DIMENSIONS, result.logits, strict=True)) for result in results if isinstance(result, Scored))
        return by_logits(a, b)

    def totals(self, predictions: list[Mapping[str, Any]]) -> dict[str, Any]:
        return {}

    async def aclose(self) -> None:
        await self._engine.close()


def _about(model: ModelRef) -> About:
    return About(model.name, model.version, model.fingerprint, model.runtime, model.evidence)
