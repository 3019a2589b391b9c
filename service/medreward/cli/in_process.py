"""The client's third transport: the server's own engine, in this process."""

from collections.abc import Mapping
from typing import Literal, Self

from prometheus_client import CollectorRegistry

from medreward import types
from medreward.api.fields import pointer_to
from medreward.api.rest.replies import milliseconds
from medreward.clients.errors import Refused
from medreward.clients.score import Contribution, Reply, Score, ScreenRequest, Step
from medreward.clients.transport import by_item
from medreward.engine.engine import Engine
from medreward.engine.limits import limits_of
from medreward.errors import RETRYABLE, Code, MedRewardError
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import DIMENSIONS, Failed, ModelRef, Result, ScoreRequest


class EngineTransport:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    async def start(cls, settings: Settings, isolation: Literal["process", "inline"] = "inline") -> Self:
        """Loads the model that the settings name; raises ConfigurationError where it cannot be served."""
        engine = Engine(settings.model_copy(update={"isolation": isolation}), Metrics(CollectorRegistry()))
        await engine.start()
        return cls(engine)

    async def score(self, request: ScoreRequest, affinity: str | None) -> Reply:
        try:
            response = await self._engine.score(request)
        except MedRewardError as error:
            raise _refused(error) from None
        results = ((result.item, result.response, score_of(result)) for result in response.results)
        return Reply(response.model, by_item(request, results), response.id, milliseconds(response.timings))

    async def screen(self, request: ScreenRequest, affinity: str | None) -> Reply:
        detail = "a model in this process has no policies: ask a server that was started with --policies"
        raise Refused(Code.POLICY_UNKNOWN, detail, retryable=False)

    async def put_image(self, data: bytes, digest: str) -> None:
        try:
            await self._engine.put_image(data)
        except MedRewardError as error:
            raise _refused(error) from None

    async def model(self) -> ModelRef:
        return self._engine.serving.ref

    async def weights(self, viewpoint: str | None) -> Mapping[str, float]:
        model = self._engine.serving.model
        if viewpoint is None:
            return model.default_weights
        viewpoints = model.manifest.viewpoints
        return viewpoints[viewpoint].weights if viewpoint in viewpoints else {}

    async def limits(self) -> Mapping[str, float]:
        return limits_of(self._engine.settings, self._engine.serving.model)

    async def close(self) -> None:
        await self._engine.close()


def _refused(error: MedRewardError) -> Refused:
    """Returns what the client raises where the engine refuses the call."""
    retryable = error.code in RETRYABLE or error.code is Code.INTERNAL
    return Refused(error.code, error.detail, retryable, error.retry_after, error.field)


def score_of(result: Result) -> Score:
    """Returns the engine's result as every transport gives it."""
    if isinstance(result, Failed):
        error = result.error
        return Score(flags=result.flags, error=error.code, message=error.detail, field=pointer_to(result))
    scores, logits, uncertainty = map(_six, (result.scores, result.logits, result.uncertainty))
    aside = result.without_thinking
    return Score(
        result.reward,
        scores,
        logits,
        uncertainty,
        result.flags,
        explain=None if result.explain is None else tuple(map(_contribution, result.explain)),
        steps=None if result.steps is None else tuple(map(_step, result.steps)),
        without_thinking=_aside(aside) if aside else None,
        expert=result.expert,
        viewpoints=result.viewpoints,
        viewpoint_spread=result.viewpoint_spread,
        cached=result.cached,
    )


def _six(values: types.Six | None) -> dict[str, float | None] | None:
    return dict(zip(DIMENSIONS, values, strict=True)) if values else None


def _aside(aside: types.Aside) -> Score:
    if aside.error:
        return Score(flags=aside.flags, error=aside.error.code, message=aside.error.detail)
    return Score(aside.reward, _six(aside.scores), _six(aside.logits), _six(aside.uncertainty), aside.flags)


def _step(step: types.Step) -> Step:
    code, message = (step.error.code, step.error.detail) if step.error else (None, None)
    return Step(step.end, _six(step.logits), step.reward, code, message)


def _contribution(part: types.Contribution) -> Contribution:
    code, message = (part.error.code, part.error.detail) if part.error else (None, None)
    return Contribution(part.start, part.end, _six(part.logits), part.reward, code, message)
