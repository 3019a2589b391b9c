"""LLaMA-Factory's reward model behind an API. Its client knows no retry, no timeout and no error: one refusal ends its
run, so this route waits where the others refuse."""

from typing import Literal

from fastapi import APIRouter, Request, Response

from medreward.api.compat.asking import PATIENCE_SECONDS, Foreign, Sample, ask, described, reply, text_sample
from medreward.api.compat.markup import apart
from medreward.api.openapi import PROBLEMS
from medreward.api.rest.middleware import entry_of
from medreward.api.shape import Shape

router = APIRouter()


class EvaluationRequest(Foreign):
    """Each message holds prompt and response, decoded with special tokens."""

    model: str = ""
    messages: list[str]


class EvaluationReply(Shape):
    """The scores are the rewards of the messages, in their order."""

    id: str
    object: Literal["score.evaluation"]
    model: str
    scores: list[float | None]


def samples(body: EvaluationRequest) -> list[Sample]:
    return [text_sample(f"/messages/{i}", apart(message)) for i, message in enumerate(body.messages)]


@router.post(
    "/v1/score/evaluation",
    tags=["trainers"],
    responses={200: {"model": EvaluationReply}, **PROBLEMS},
    openapi_extra=described(EvaluationRequest),
)
async def evaluation(request: Request) -> Response:
    """Rewards for LLaMA-Factory (`reward_model_type: api`). A busy server is waited for, for minutes."""
    body, answers = await ask(request, EvaluationRequest, samples, PATIENCE_SECONDS)
    scores = [answer.reward for answer in answers]
    id_ = entry_of(request.scope).request_id
    return reply(request, {"id": id_, "object": "score.evaluation", "model": body.model, "scores": scores})
