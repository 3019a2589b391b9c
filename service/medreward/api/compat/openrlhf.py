"""OpenRLHF's remote reward, a query or a whole micro-batch a call."""

from typing import Any

from fastapi import APIRouter, Request, Response

from medreward.api.compat.asking import Foreign, Sample, ask, by_dimension, described, reply, text_sample
from medreward.api.compat.markup import apart_after
from medreward.api.openapi import PROBLEMS
from medreward.api.shape import Shape
from medreward.errors import Code, RequestError
from medreward.types import DIMENSIONS

router = APIRouter()


class GetRewardRequest(Foreign):
    """Each query holds prompt and response, decoded with special tokens. Its label names its image."""

    query: list[str]
    prompts: list[str] | None = None
    labels: list[Any] | None = None


class ExtraLogs(Shape):
    accuracy: list[float | None]
    relevance: list[float | None]
    comprehensiveness: list[float | None]
    creativity: list[float | None]
    responsiveness: list[float | None]
    overall: list[float | None]


class GetRewardReply(Shape):
    """The rewards, the scores of `overall`, which dynamic filtering reads, and the logits. Lists as long as `query`."""

    rewards: list[float | None]
    scores: list[float | None]
    extra_logs: ExtraLogs


def samples(body: GetRewardRequest) -> list[Sample]:
    count = len(body.query)
    prompts, labels = body.prompts or [""] * count, body.labels or [None] * count
    for name, given in ("prompts", prompts), ("labels", labels):
        if len(given) != count:
            raise RequestError(Code.INVALID_FIELD, f"{name} must be as many as query, or left out", f"/{name}")
    return [
        text_sample(f"/query/{i}", apart_after(prompt, query), label)
        for i, (query, prompt, label) in enumerate(zip(body.query, prompts, labels, strict=True))
    ]


@router.post(
    "/get_reward",
    tags=["trainers"],
    responses={200: {"model": GetRewardReply}, **PROBLEMS},
    openapi_extra=described(GetRewardRequest),
)
async def get_reward(request: Request) -> Response:
    """Rewards for OpenRLHF (`--reward.remote_url`)."""
    _, answers = await ask(request, GetRewardRequest, samples)
    logits = [by_dimension(answer.logits) for answer in answers]
    return reply(
        request,
        {
            "rewards": [answer.reward for answer in answers],
            "scores": [answer.scores[DIMENSIONS.index("overall")] for answer in answers],
            "extra_logs": {dimension: [six[dimension] for six in logits] for dimension in DIMENSIONS},
        },
    )
