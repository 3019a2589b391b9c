"""The route that ranks: which of several responses to one question is the best, and how sure the model is of it."""

from fastapi import APIRouter, Request, Response
from pydantic import Field

from medreward.api.fields import read_deadline, read_lane
from medreward.api.openapi import PROBLEMS, scoring
from medreward.api.ranked import ranked
from medreward.api.rest.leaving import cancelled_if_left
from medreward.api.rest.middleware import engine_of, entry_of
from medreward.api.rest.replies import score_body, six_of, timed_reply
from medreward.api.rest.reply_shapes import ScoreReply, Six
from medreward.api.rest.request_shapes import RankRequest
from medreward.api.rest.requests import read_score_body

router = APIRouter(tags=["trainers"])


class RankReply(ScoreReply):
    """What /score answers, and places in `responses`, counted from 0."""

    order: list[int] = Field(
        description="the best response first; of equal rewards the one that was sent first; those without a score last"
    )
    ties: list[list[int]] = Field(description="responses that have one and the same reward")
    unscored: list[int] = Field(description="responses without a score: their results say why")
    first_beats_second: float | None = Field(
        description="the model's probability that the first beats the second: sigmoid of the difference of their "
        "rewards over the sum of the weights' sizes; null with fewer than two scores"
    )
    by_dimension: Six | None = Field(description="the same for each dimension: sigmoid of the difference of its logits")


@router.post("/v1/rank", responses={200: {"model": RankReply}, **PROBLEMS}, openapi_extra=scoring(RankRequest))
async def rank(request: Request) -> Response:
    """The order of several responses to one question, with their scores. One that cannot be scored stands last."""
    engine, entry, headers = engine_of(request), entry_of(request.scope), request.headers
    entry.lane = read_lane(headers.get("x-lane"))
    entry.caller.check_lane(entry.lane)
    deadline_s = read_deadline(headers.get("x-deadline-ms"))
    engine.refuse_early(entry.lane)
    with engine.bodies.reserve() as room:
        body = await read_score_body(request, engine.settings, room, (RankRequest, None))
        asked = body.to_request(entry, headers, deadline_s)
        entry.caller.charge(await engine.triples_of(asked))
        async with cancelled_if_left(request):
            response = await engine.score(asked)
    entry.add(response)
    found = ranked(response)
    return timed_reply(
        {
            **score_body(response, body.pointers),
            "order": found.order,
            "ties": found.ties,
            "unscored": found.unscored,
            "first_beats_second": found.first_beats_second,
            "by_dimension": six_of(found.by_dimension) if found.by_dimension else None,
        },
        response.timings,
    )
