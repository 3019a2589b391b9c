"""LiteLLM's generic guardrail. LiteLLM sends the conversation when a model is asked (`input_type: request`), and the
answer alone when there is one (`response`), both under one id. Until then the conversation is kept in the image store,
within its bounds of room and time: it holds images, and a tenant sees its own alone."""

import json
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field, TypeAdapter, ValidationError

from medreward.api.compat.asking import Foreign, encoded, read_foreign
from medreward.api.compat.chat import Message, chat_sample
from medreward.api.compat.deciding import ORDER, Choice, decide, described, image_sent, interactive
from medreward.api.openapi import PROBLEMS
from medreward.api.rest.middleware import engine_of, entry_of
from medreward.api.rest.replies import json_reply
from medreward.api.rest.requests import read_body
from medreward.api.shape import Shape
from medreward.errors import Code, MedRewardError, RequestError
from medreward.screening.screening import Screened
from medreward.types import Base64Image, Failed, FileImage, Item, Verdict

router = APIRouter(tags=["screening"])


class GuardrailRequest(Foreign):
    """What LiteLLM sends, of which only this is read."""

    input_type: Literal["request", "response"]
    texts: list[str] | None = None
    images: list[str] | None = None
    structured_messages: list[dict[str, Any]] | None = None
    request_data: dict[str, Any] | None = None
    litellm_call_id: str | None = None
    additional_provider_specific_params: Choice | None = None


class GuardrailReply(Shape):
    action: Literal["NONE", "BLOCKED"]
    blocked_reason: str | None
    verdict: Verdict | None = Field(description="the worst of all answers; null for a request, which has none yet")
    decision_id: str | None = Field(description="null where nothing was decided")


@router.post(
    "/beta/litellm_basic_guardrail_api",
    responses={200: {"model": GuardrailReply}, **PROBLEMS},
    openapi_extra=described(GuardrailRequest),
)
async def guardrail(request: Request) -> Response:
    """Blocks an answer that is not allowed, in the shape of LiteLLM's generic guardrail. A refusal blocks too, whatever
    LiteLLM is told to do about errors."""
    try:
        reply = await _guarded(request)
    except MedRewardError as error:
        entry_of(request.scope).refusal = error
        reply = _answer(Verdict.UNSCORED, f"{error.code}: {error.detail}")
    return json_reply(reply)


async def _guarded(request: Request) -> dict[str, Any]:
    engine, entry = engine_of(request), interactive(request)
    store, tenant = engine.images.store, entry.caller.tenant
    with engine.bodies.reserve() as room:
        body = read_foreign(GuardrailRequest, await read_body(request, engine.settings, room), engine.settings)
        messages = body.structured_messages or (body.request_data or {}).get("messages")
        kept = f"litellm:{body.litellm_call_id}"
        if body.input_type == "request":
            if body.litellm_call_id and messages:
                store.put(tenant, kept, encoded(messages))
            return _answer(None)  # there is nothing yet that could be scored
        if not messages:
            messages = json.loads(store.get(tenant, kept) or "null")
        item = _item_of(body, messages)
        screened = await decide(request, item, body.additional_provider_specific_params or Choice())
    return _reply(screened)


def _item_of(body: GuardrailRequest, messages: object) -> Item:
    """Returns the answers and what was asked. Refuses them where nobody knows what was asked."""
    if not body.texts:
        raise RequestError(Code.INVALID_FIELD, "there is no answer in texts", "/texts")
    if not messages:
        detail = (
            "the question is not known: give the guardrail mode [pre_call, post_call], and send a call's request and "
            "response to one server"
        )
        raise RequestError(Code.EMPTY_QUESTION, detail)
    try:
        turns = TypeAdapter(list[Message]).validate_python(messages)
    except ValidationError:
        raise RequestError(Code.INVALID_FIELD, "the messages are not in the shape of OpenAI's chat") from None
    asked = chat_sample("", turns, "").item
    if not isinstance(asked, Item):
        raise RequestError(asked.code, asked.detail)
    images = asked.images or tuple(map(image_sent, body.images or ()))
    # A trainer may name a file below --image-root; a gateway's users may not.
    images = tuple(Base64Image(each.path) if isinstance(each, FileImage) else each for each in images)
    return Item(asked.question, tuple(body.texts), images, asked.history)


def _reply(screened: Screened) -> dict[str, Any]:
    """Returns the answer for the worst of the verdicts. Its reason names no word of the payload."""
    decisions = zip(screened.response.results, screened.decisions, strict=True)
    result, worst = max(decisions, key=lambda decided: ORDER.index(decided[1].verdict))
    if worst.verdict is Verdict.ALLOW:
        return _answer(worst.verdict, decision=screened.id)
    why = result.error.code if isinstance(result, Failed) else worst.reasons[0].rule
    policy = screened.policy.policy
    reason = f"{worst.verdict}: {why} (policy {policy.name} {policy.version}, decision {screened.id})"
    return _answer(worst.verdict, reason, screened.id)


def _answer(verdict: Verdict | None, reason: str | None = None, decision: str | None = None) -> dict[str, Any]:
    action = "NONE" if verdict in (None, Verdict.ALLOW) else "BLOCKED"
    return {"action": action, "blocked_reason": reason, "verdict": verdict, "decision_id": decision}
