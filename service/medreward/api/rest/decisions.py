"""The route by which a person overrides a verdict. The audit log keeps who did, and why."""

import re
from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field, field_validator

from medreward.api.openapi import PROBLEMS, REFERENCE
from medreward.api.rest.middleware import engine_of, entry_of
from medreward.api.rest.replies import json_reply
from medreward.api.rest.requests import checked, decode_json, read_body
from medreward.api.rest.screen import screening_of
from medreward.api.shape import Shape
from medreward.api.structure import check_json
from medreward.errors import Code, RequestError
from medreward.screening.audit.entries import Override
from medreward.types import Verdict

router = APIRouter(tags=["screening"])

DECISION_ID: Final = re.compile(r"[0-9a-f]{32}")
REASON_CHARS: Final = 500
AUDIT_OFF: Final = "this server keeps no audit log: start it with --audit"
UNKNOWN: Final = "no decision in the audit log has this id"


class OverrideRequest(Shape):
    """The verdict that a person gives instead. A decision on one response needs neither item nor response."""

    verdict: Literal["allow", "review", "block"]
    reason: str = Field(
        description="why, in a person's words, on one line; the audit log keeps it, so it must not name a patient",
        json_schema_extra={"maxLength": REASON_CHARS},
    )
    item: int | None = None
    response: int | None = None

    @field_validator("reason")
    @classmethod
    def _is_said(cls, reason: str) -> str:
        if not reason.strip() or not reason.isprintable() or len(reason) > REASON_CHARS:
            raise ValueError(f"this field must be one line of 1 to {REASON_CHARS} printable characters")
        return reason.strip()


class OverrideReply(Shape):
    """The override as the audit log has it."""

    decision_id: str
    item: int
    response: int
    decided: Verdict = Field(description="the verdict of the policy, which stays in the log")
    verdict: Verdict


BODY: Final = {"application/json": {"schema": {"$ref": REFERENCE.format(model=OverrideRequest.__name__)}}}


@router.post(
    "/v1/decisions/{decision_id}/override",
    responses={200: {"model": OverrideReply}, **PROBLEMS},
    openapi_extra={"requestBody": {"required": True, "content": BODY}},
)
async def override_verdict(request: Request, decision_id: str) -> Response:
    """Records that a person overrides the verdict on one response, and why. It needs a key with the scope override.
    404 where this tenant has no such decision; 409 where the server keeps no audit log."""
    engine, entry, audit = engine_of(request), entry_of(request.scope), screening_of(request).audit
    with engine.bodies.reserve() as room:
        data = await read_body(request, engine.settings, room)
        check_json(data, engine.settings)
        body = checked(OverrideRequest, decode_json(data))
    if audit is None:
        raise RequestError(Code.AUDIT_OFF, AUDIT_OFF)
    if not DECISION_ID.fullmatch(decision_id):
        raise RequestError(Code.NOT_FOUND, UNKNOWN)
    caller = entry.caller
    result = _chosen(await audit.decided(decision_id, caller.tenant), body)
    override = Override(
        decision_id,
        result["item"],
        result["response"],
        decided=Verdict(result["verdict"]),
        verdict=Verdict(body.verdict),
        reason=body.reason,
        key_id=caller.id,
        tenant=caller.tenant,
        request_id=entry.request_id,
    )
    await audit.override(override)
    return json_reply({name: getattr(override, name) for name in OverrideReply.model_fields})


def _chosen(decided: list[dict[str, Any]], body: OverrideRequest) -> dict[str, Any]:
    """Returns the one result that the request names; refuses one that names none or several."""
    named = [
        result
        for result in decided
        if body.item in (None, result["item"]) and body.response in (None, result["response"])
    ]
    if not named:
        raise RequestError(Code.INVALID_FIELD, "the decision has no such response", "/response")
    if len(named) > 1:
        raise RequestError(Code.INVALID_FIELD, "the decision is on several: name item and response", "/response")
    return named[0]
