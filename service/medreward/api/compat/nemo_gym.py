"""NeMo Gym's verification of a rollout, which is in the shape of OpenAI's Responses API."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict

from medreward.api.compat.asking import Answer, Foreign, Sample, ask, call_of, described, reply
from medreward.api.compat.chat import Message, chat_sample
from medreward.api.openapi import PROBLEMS
from medreward.api.rest.middleware import engine_of, entry_of
from medreward.api.rest.requests import checked
from medreward.engine.checks import weights_of
from medreward.types import DIMENSIONS

router = APIRouter()

#: With this a row goes to Gym's file of failures, out of the metrics, and is tried again.
FAILURE: Final = {"_ng_failure_class": "judge_failed"}


class ResponsesItem(Message):
    """A part of an input or output. One that is no message, such as reasoning or a call of a tool, has no role."""

    role: str = ""
    type: str = "message"


class CreateParams(Foreign):
    input: str | list[ResponsesItem]


class Output(Foreign):
    output: list[ResponsesItem]


class VerifyRequest(Foreign):
    """A row with the question and the policy's response, which comes back whole."""

    model_config = ConfigDict(extra="allow")

    responses_create_params: dict[str, Any]
    response: dict[str, Any]


class VerifyReply(VerifyRequest):
    """The row, its reward, and weight times logit of each dimension, whose sum is the reward."""

    reward: float | None
    reward_components: dict[str, float | None]


def samples(body: VerifyRequest) -> list[Sample]:
    asked = checked(CreateParams, body.responses_create_params).input
    messages = [ResponsesItem(role="user", content=asked)] if isinstance(asked, str) else asked
    output = checked(Output, body.response).output
    said = [item.text for item in output if item.type == "message" and item.role == "assistant"]
    return [chat_sample("/response", messages, said[-1] if said else "")]


@router.post(
    "/verify",
    tags=["trainers"],
    responses={200: {"model": VerifyReply}, **PROBLEMS},
    openapi_extra=described(VerifyRequest),
)
async def verify(request: Request) -> Response:
    """The row of a rollout with its reward, for NeMo Gym. A row whose reward `on_error` filled has a failure class."""
    body, (answer,) = await ask(request, VerifyRequest, samples)
    answered = engine_of(request).models.named(entry_of(request.scope).fingerprint)
    weights = weights_of(call_of(request).request, answered.model)
    row = {name: value for name, value in body.model_dump().items() if name not in FAILURE}
    verdict = {"reward": answer.reward, "reward_components": components(answer, weights)}
    return reply(request, row | verdict | (FAILURE if answer.error else {}))


def components(answer: Answer, weights: Mapping[str, float]) -> dict[str, float | None]:
    """Returns parts that add up to the reward. One that was filled in is all of `overall`."""
    if answer.error:
        return dict.fromkeys(DIMENSIONS, None if answer.reward is None else 0.0) | {"overall": answer.reward}
    parts = zip(DIMENSIONS, answer.logits, strict=True)
    return {name: weights.get(name, 0.0) * logit if logit is not None else 0.0 for name, logit in parts}
