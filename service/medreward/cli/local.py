"""The server's own engine in this process, asked and answering in the server's own words."""

import json
import uuid
from typing import Any, Self

from prometheus_client import CollectorRegistry

from medreward.api.rest.replies import model_ref, score_reply
from medreward.api.rest.requests import parse_json
from medreward.engine.engine import Engine
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import ScoreRequest


class Local:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    async def started(cls, settings: Settings) -> Self:
        engine = Engine(settings.model_copy(update={"isolation": "inline"}), Metrics(CollectorRegistry()))
        await engine.start()
        return cls(engine)

    async def aclose(self) -> None:
        await self._engine.close()

    async def model(self) -> dict[str, str]:
        return model_ref(self._engine.serving.ref)

    async def score(self, body: bytes) -> dict[str, Any]:
        parsed = parse_json(body, self._engine.settings)
        request = ScoreRequest(uuid.uuid4().hex, parsed.items, parsed.weights, parsed.options)
        reply: dict[str, Any] = json.loads(bytes(score_reply(await self._engine.score(request), parsed.pointers).body))
        return reply
