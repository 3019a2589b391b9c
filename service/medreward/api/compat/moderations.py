"""OpenAI's moderation, for programs that ask it before they show an answer. An answer that is not allowed is flagged,
one that could not be scored too."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from medreward.api.compat.asking import model_headers, read_foreign
from medreward.api.compat.chat import Part
from medreward.api.compat.deciding import Choice, decide, described, image_sent, interactive
from medreward.api.openapi import PROBLEMS
from medreward.api.rest.middleware import engine_of
from medreward.api.rest.replies import json_reply
from medreward.api.rest.reply_shapes import ErrorShape
from medreward.api.rest.requests import read_body
from medreward.api.rest.screen import PolicyRefShape, ReasonShape
from medreward.api.shape import Shape
from medreward.errors import Code, RequestError
from medreward.screening.deciding import Decision
from medreward.types import DIMENSIONS, Failed, Item, Result, Verdict

router = APIRouter(tags=["screening"])

#: Categories beside the six dimensions: why an answer is flagged.
FLAGGED: Final = (Verdict.REVIEW, Verdict.BLOCK, Verdict.UNSCORED)


class ModerationRequest(Choice):
    """One answer, several to one question, or the parts of one exchange: images, the question and, last, the answer."""

    input: str | list[str] | list[Part]
    question: str = Field("", description="what was asked; in parts, the texts before the last")
    image: str | None = Field(None, description="a data URL, base64, a URL, or the sha256 of a stored image")


class Moderation(Shape):
    flagged: bool = Field(description="true for every verdict but allow")
    categories: dict[str, bool] = Field(
        description="review, block and unscored: the verdict; a dimension: the rule that decided is on it"
    )
    category_scores: dict[str, float | None] = Field(
        description="a dimension: 1 - its score, null where there is none; review, block and unscored: 1 or 0"
    )
    category_applied_input_types: dict[str, list[str]]
    verdict: Verdict
    reasons: list[ReasonShape]
    margin: float | None
    error: ErrorShape | None = Field(description="why there is no score")


class ModerationReply(Shape):
    id: str
    model: str
    results: list[Moderation] = Field(description="one for each answer")
    policy: PolicyRefShape
    decision_id: str


@router.post(
    "/v1/moderations",
    responses={200: {"model": ModerationReply}, **PROBLEMS},
    openapi_extra=described(ModerationRequest),
)
async def moderations(request: Request) -> Response:
    """Whether an answer is flagged, in OpenAI's shape: by a policy, and whenever it could not be scored."""
    engine, entry = engine_of(request), interactive(request)
    with engine.bodies.reserve() as room:
        body = read_foreign(ModerationRequest, await read_body(request, engine.settings, room), engine.settings)
        item = item_of(body)
        screened = await decide(request, item, body)
    kinds = ["text", "image"] if item.images else ["text"]
    results = [
        _moderation(result, decision, kinds)
        for result, decision in zip(screened.response.results, screened.decisions, strict=True)
    ]
    about = {"id": f"modr-{entry.request_id}", "model": screened.response.model.name, "results": results}
    beside = {"policy": screened.policy.as_json(), "decision_id": screened.id}
    return json_reply({**about, **beside}, headers=model_headers(request))


def item_of(body: ModerationRequest) -> Item:
    """Returns what is to be scored; refuses an input without an answer, and two questions."""
    question, images = body.question, [body.image] if body.image else []
    given = [body.input] if isinstance(body.input, str) else body.input
    parts = [each for each in given if isinstance(each, Part)]
    texts = [text for each in given if (text := each if isinstance(each, str) else each.text) is not None]
    if not texts:
        raise RequestError(Code.INVALID_FIELD, "the input has no answer: it must have at least one text", "/input")
    if parts:
        *asked, answer = texts
        if question and asked:
            detail = "the question is given twice: in the field question, and as a text before the answer"
            raise RequestError(Code.INVALID_FIELD, detail, "/question")
        question, texts = question or "\n".join(asked), [answer]
        images += [part.image_name for part in parts if part.image_name]
    return Item(question, tuple(texts), tuple(map(image_sent, images)))


def _moderation(result: Result, decision: Decision, kinds: Sequence[str]) -> dict[str, Any]:
    flagged, verdict = decision.verdict is not Verdict.ALLOW, decision.verdict
    decided = {reason.dimension for reason in decision.reasons if flagged}
    scores: Sequence[float | None] = (None,) * len(DIMENSIONS) if isinstance(result, Failed) else result.scores
    badness = {name: 1 - x if x is not None else None for name, x in zip(DIMENSIONS, scores, strict=True)}
    error = None
    if isinstance(result, Failed):
        error = {"code": result.error.code, "message": result.error.detail, "field": ""}
    return {
        "flagged": flagged,
        "categories": {name: name in decided for name in DIMENSIONS} | {each: each is verdict for each in FLAGGED},
        "category_scores": badness | {each: float(each is verdict) for each in FLAGGED},
        "category_applied_input_types": dict.fromkeys((*DIMENSIONS, *FLAGGED), kinds),
        "verdict": verdict,
        "reasons": decision.reasons,
        "margin": decision.margin,
        "error": error,
    }
