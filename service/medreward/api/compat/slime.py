"""slime's remote reward model, one sample a call."""

from typing import Any

from fastapi import APIRouter, Request, Response

from medreward.api.compat.asking import Foreign, Sample, ask, by_dimension, described, reply, text_sample
from medreward.api.compat.chat import Message, chat_sample
from medreward.api.compat.markup import apart, without_ends
from medreward.api.openapi import PROBLEMS
from medreward.api.rest.reply_shapes import Six

router = APIRouter()


class RmRequest(Foreign):
    """The prompt is a text or messages; the label names the image."""

    prompt: str | list[Message]
    response: str
    label: Any = None


class RmReply(Six):
    """The reward (`--reward-key reward`), the score of `overall`, and the logit of each dimension under its name."""

    reward: float | None
    score: float | None


def samples(body: RmRequest) -> list[Sample]:
    if isinstance(body.prompt, str):
        parts = apart(body.prompt + body.response, len(body.prompt))
        return [text_sample("/response", parts, body.label)]
    return [chat_sample("/response", body.prompt, without_ends(body.response), body.label)]


@router.post(
    "/rm",
    tags=["trainers"],
    responses={200: {"model": RmReply}, **PROBLEMS},
    openapi_extra=described(RmRequest),
)
async def rm(request: Request) -> Response:
    """The reward for slime (`--rm-type remote_rm --rm-url … --reward-key reward`)."""
    _, (answer,) = await ask(request, RmRequest, samples)
    return reply(request, {"reward": answer.reward, "score": answer.scores[-1], **by_dimension(answer.logits)})
