"""vLLM's classification, which verl asks for the reward of a text (`disrm`), and others for a chat with images."""

import time
from typing import Literal

from fastapi import APIRouter, Request, Response

from medreward.api.compat.asking import Foreign, Sample, ask, described, reply, text_sample
from medreward.api.compat.chat import Message, chat_sample
from medreward.api.compat.markup import apart
from medreward.api.openapi import PROBLEMS
from medreward.api.rest.middleware import entry_of
from medreward.api.shape import Shape
from medreward.errors import Code, RequestError
from medreward.types import DIMENSIONS

router = APIRouter()


class ClassifyRequest(Foreign):
    """Either `input`, texts with prompt and response, or `messages`, a chat whose last message is the response."""

    model: str = ""
    input: str | list[str] | None = None
    messages: list[Message] | None = None


class Classified(Shape):
    index: int
    label: str | None
    probs: list[float | None]
    num_classes: int


class Usage(Shape):
    """Nothing is counted here."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int


class ClassifyReply(Shape):
    """`probs` are no probabilities: the six logits, then the reward, for verl trains on the last."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classified]
    usage: Usage


def samples(body: ClassifyRequest) -> list[Sample]:
    if (body.input is None) == (body.messages is None):
        raise RequestError(Code.INVALID_FIELD, "the body must have either input or messages", "/input")
    if body.messages is None:
        texts = [body.input] if isinstance(body.input, str) else body.input or []
        return [text_sample(f"/input/{i}", apart(text)) for i, text in enumerate(texts)]
    if not body.messages or body.messages[-1].role != "assistant":
        detail = "the last message must be the assistant's: it is what is scored"
        raise RequestError(Code.INVALID_FIELD, detail, "/messages")
    return [chat_sample("/messages", body.messages[:-1], body.messages[-1].text)]


@router.post(
    "/classify",
    tags=["trainers"],
    responses={200: {"model": ClassifyReply}, **PROBLEMS},
    openapi_extra=described(ClassifyRequest),
)
async def classify(request: Request) -> Response:
    """Logits and reward in vLLM's shape, as verl reads it."""
    body, answers = await ask(request, ClassifyRequest, samples)
    data = [
        {"index": i, "label": "reward", "probs": [*answer.logits, answer.reward], "num_classes": len(DIMENSIONS) + 1}
        for i, answer in enumerate(answers)
    ]
    about = {"id": f"classify-{entry_of(request.scope).request_id}", "object": "list", "created": int(time.time())}
    usage = {"prompt_tokens": 0, "total_tokens": 0, "completion_tokens": 0}
    return reply(request, {**about, "model": body.model, "data": data, "usage": usage})
