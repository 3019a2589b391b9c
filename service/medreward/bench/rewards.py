"""A reward model that a client asks, behind a URL or in this process. Both answers of a case are one group."""

from collections.abc import Mapping
from typing import Any

from medreward.bench.cases import Case
from medreward.bench.chooser import About, Prediction, StoppedError, by_logits, unanswered
from medreward.clients import AsyncClient, ClientError
from medreward.clients.errors import is_server_away
from medreward.errors import Code, ConfigurationError
from medreward.types import DIMENSIONS, Options


class Rewards:
    """Asks the model that is there when the run begins, and no other one."""

    def __init__(self, client: AsyncClient, options: Options) -> None:
        self._client = client
        self._options = options

    async def about(self) -> About:
        try:
            model = await self._client.pin_model()
        except ClientError as error:
            raise ConfigurationError(str(error)) from None
        return About(model.name, model.version, model.fingerprint, str(model.runtime), model.evidence)

    async def choose(self, case: Case) -> Prediction:
        too_long, thinking = self._options.too_long, self._options.thinking
        try:
            both = await self._client.score(
                case.image or None, case.question, case.answers, too_long=too_long, thinking=thinking
            )
        except ClientError as error:
            raise StoppedError(str(error)) from None
        for score in both:
            if score.error and is_server_away(score.error):
                raise StoppedError(f"{score.error}: {score.message}")
            if score.logits is None:
                return unanswered(score.error or Code.INTERNAL)
        a, b = ({d: (score.logits or {})[d] for d in DIMENSIONS} for score in both)
        return by_logits(a, b)

    def totals(self, predictions: list[Mapping[str, Any]]) -> dict[str, Any]:
        return {}

    async def aclose(self) -> None:
        await self._client.close()
