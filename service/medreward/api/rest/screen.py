"""The routes that decide: a verdict on each response by a policy, and the policies there are."""

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from medreward.api.fields import read_deadline, read_lane
from medreward.api.openapi import PROBLEMS, scoring
from medreward.api.rest.leaving import cancelled_if_left
from medreward.api.rest.middleware import engine_of, entry_of
from medreward.api.rest.replies import json_reply, score_body, timed_reply
from medreward.api.rest.reply_shapes import ResultShape, ScoreReply
from medreward.api.rest.request_shapes import GroupedRequest, TripleRequest
from medreward.api.rest.requests import ScoreBody, read_score_body
from medreward.api.shape import Shape
from medreward.errors import ItemError
from medreward.screening.policy import FalseAllow, Rule
from medreward.screening.screening import Screened, Screening, ScreenRequest
from medreward.types import Lane, ScoreRequest, Verdict

router = APIRouter(tags=["screening"])


class BesideScreening(Shape):
    policy: str | None = Field(None, max_length=64, description="name of the policy; by default the server's")
    on_unscored: Literal["verdict", "problem"] = Field(
        "verdict",
        description="what is answered where a response cannot be scored: the verdict unscored and status 200, or the "
        "error of the first such response as a problem",
    )


class ScreenTripleRequest(TripleRequest, BesideScreening):
    """One triple to decide on."""


class ScreenGroupedRequest(GroupedRequest, BesideScreening):
    """Many triples to decide on, grouped by image and question."""


class ReasonShape(Shape):
    """The rule that decided first; `otherwise` where none did, with the threshold that was missed last."""

    rule: str
    dimension: str | None
    value: float | None = Field(description="null for a rule about a flag")
    threshold: float | None


class ScreenResultShape(ResultShape):
    verdict: Verdict = Field(description="unscored means that nothing was decided: never show such an answer unseen")
    reasons: list[ReasonShape] = Field(description="empty where there is no score: the error is the reason")
    margin: float | None = Field(description="how far the value is from the threshold, in the value's own unit")


class PolicyRefShape(Shape):
    name: str
    version: str
    digest: str = Field(description="sha256 of the policy's file")


class ScreenReply(ScoreReply):
    results: list[ScreenResultShape]  # type: ignore[assignment]  # a result with three fields more
    policy: PolicyRefShape
    decision_id: str = Field(description="names this decision in the audit log and in an override")


class PolicyShape(PolicyRefShape):
    default: bool = Field(description="whether it decides on a request that names none")
    versions: list[str]
    fingerprint: str
    otherwise: Verdict
    weights: dict[str, float] | None
    rules: list[Rule]
    departments: dict[str, dict[str, float]]
    false_allow: FalseAllow | None


class PoliciesReply(Shape):
    policies: list[PolicyShape]


SHAPES = (ScreenTripleRequest, ScreenGroupedRequest)


def screening_of(request: Request) -> Screening:
    screening: Screening = request.app.state.screening
    return screening


@router.post(
    "/v1/screen",
    responses={200: {"model": ScreenReply}, **PROBLEMS},
    openapi_extra=scoring(ScreenTripleRequest, ScreenGroupedRequest),
)
async def screen(request: Request) -> Response:
    """A verdict on each response, by a policy. What cannot be scored is unscored, and never allowed."""
    engine, entry, headers = engine_of(request), entry_of(request.scope), request.headers
    entry.lane = read_lane(headers.get("x-lane"), Lane.INTERACTIVE)
    entry.caller.check_lane(entry.lane)
    with engine.bodies.reserve() as room:
        body = await read_score_body(request, engine.settings, room, (ScreenTripleRequest, ScreenGroupedRequest))
        asked = body.to_request(entry, headers, read_deadline(headers.get("x-deadline-ms")))
        entry.caller.charge(await engine.triples_of(asked))
        async with cancelled_if_left(request):
            screened = await screening_of(request).screen(_request(asked, body, entry.caller.id))
    entry.add(screened.response)
    beside, unscored = body.shape, screened.first_unscored()
    if unscored and isinstance(beside, BesideScreening) and beside.on_unscored == "problem":
        error, pointers = unscored.error, body.pointers[unscored.item]
        raise ItemError(error.code, error.detail, pointers.to(unscored), error.retry_after)
    return timed_reply(_reply(screened, body), screened.response.timings)


@router.get("/v1/policies", responses={200: {"model": PoliciesReply}, **PROBLEMS})
async def policies(request: Request) -> Response:
    """The policies that this server decides by: the current version of each, with its rules."""
    return json_reply({"policies": screening_of(request).policies.listed()})


def _request(asked: ScoreRequest, body: ScoreBody, key_id: str) -> ScreenRequest:
    match body.shape:
        case ScreenTripleRequest() as triple:
            return ScreenRequest(asked, triple.policy, (triple.department,), key_id)
        case ScreenGroupedRequest() as grouped:
            return ScreenRequest(asked, grouped.policy, tuple(item.department for item in grouped.items), key_id)
        case _:
            return ScreenRequest(asked, key_id=key_id)


def _reply(screened: Screened, body: ScoreBody) -> dict[str, Any]:
    reply = score_body(screened.response, body.pointers)
    for result, decision in zip(reply["results"], screened.decisions, strict=True):
        result |= {"verdict": decision.verdict, "reasons": decision.reasons, "margin": decision.margin}
    return {**reply, "policy": screened.policy.as_json(), "decision_id": screened.id}
