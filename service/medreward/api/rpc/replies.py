"""The engine's answers to messages of the contract."""

from collections.abc import Sequence

from medreward.api.fields import pointer_to
from medreward.errors import ItemError, MedRewardError
from medreward.proto import reward_pb2 as pb
from medreward.ranking import Ranking
from medreward.screening.deciding import Decision
from medreward.screening.screening import Screened
from medreward.types import (
    DIMENSIONS,
    Aside,
    Contribution,
    Failed,
    ModelRef,
    Result,
    Scored,
    ScoreResponse,
    Six,
    Step,
    Timings,
)


def score_reply(response: ScoreResponse, message_id: str = "") -> pb.ScoreResponse:
    """Returns the reply under the id that the message had, unchanged, for the client matches replies by it."""
    return pb.ScoreResponse(
        request_id=message_id or response.id,
        model=model_ref(response.model),
        results=[_result(result) for result in response.results],
        timings=_timings(response.timings),
    )


def rank_reply(response: ScoreResponse, ranking: Ranking, message_id: str = "") -> pb.RankResponse:
    """Returns the reply to a request for a ranking, under the id that its message had."""
    return pb.RankResponse(
        request_id=message_id or response.id,
        model=model_ref(response.model),
        results=[_result(result) for result in response.results],
        timings=_timings(response.timings),
        order=ranking.order,
        ties=[pb.Tie(responses=tie) for tie in ranking.ties],
        unscored=ranking.unscored,
        first_beats_second=ranking.first_beats_second,
        by_dimension=_six(ranking.by_dimension) if ranking.by_dimension else None,
    )


def screen_reply(screened: Screened, message_id: str = "") -> pb.ScreenResponse:
    """Returns the reply to a request for verdicts, under the id that its message had."""
    response = screened.response
    return pb.ScreenResponse(
        request_id=message_id or response.id,
        model=model_ref(response.model),
        results=[_result(result) for result in response.results],
        timings=_timings(response.timings),
        decisions=[_decision(decision) for decision in screened.decisions],
        policy=pb.PolicyRef(**screened.policy.as_json()),
        decision_id=screened.id,
    )


def refusal_reply(request: pb.ScoreRequest, id_: str, refusal: MedRewardError) -> pb.ScoreResponse:
    """Returns the reply to a refused message of a stream: each of its responses has the refusal as its error, and a
    message without responses has one result that says it."""
    error = pb.Error(code=refusal.code, message=refusal.detail, field=refusal.field)
    places = [(i, j) for i, item in enumerate(request.items) for j in range(len(item.responses))]
    results = [pb.Result(item=i, response=j, error=error) for i, j in places or [(0, 0)]]
    return pb.ScoreResponse(request_id=request.request_id or id_, results=results)


def model_ref(model: ModelRef) -> pb.ModelRef:
    return pb.ModelRef(
        name=model.name,
        version=model.version,
        fingerprint=model.fingerprint,
        runtime=str(model.runtime),
        evidence=model.evidence,
    )


def _result(result: Result) -> pb.Result:
    if isinstance(result, Failed):
        return pb.Result(item=result.item, response=result.response, flags=result.flags, error=_error(result))
    return pb.Result(
        item=result.item,
        response=result.response,
        scores=_six(result.scores),
        logits=_six(result.logits),
        uncertainty=_six(result.uncertainty) if result.uncertainty else None,
        reward=result.reward,
        flags=result.flags,
        cached=result.cached,
        explain=_explanation(result, result.explain) if result.explain is not None else None,
        steps=_steps(result, result.steps) if result.steps is not None else None,
        without_thinking=_aside(result, result.without_thinking) if result.without_thinking is not None else None,
        expert=result.expert,
        viewpoints=result.viewpoints,
        viewpoint_spread=result.viewpoint_spread,
    )


def _explanation(result: Scored, contributions: Sequence[Contribution]) -> pb.Explanation:
    return pb.Explanation(
        sentences=[
            pb.Contribution(
                start=each.start,
                end=each.end,
                logits=_six(each.logits) if each.logits else None,
                reward=each.reward,
                error=_why(result, each.error),
            )
            for each in contributions
        ]
    )


def _steps(result: Scored, steps: Sequence[Step]) -> pb.Steps:
    return pb.Steps(
        steps=[
            pb.Step(
                end=each.end,
                logits=_six(each.logits) if each.logits else None,
                reward=each.reward,
                error=_why(result, each.error),
            )
            for each in steps
        ]
    )


def _aside(result: Scored, aside: Aside) -> pb.Aside:
    return pb.Aside(
        scores=_six(aside.scores) if aside.scores else None,
        logits=_six(aside.logits) if aside.logits else None,
        uncertainty=_six(aside.uncertainty) if aside.uncertainty else None,
        reward=aside.reward,
        flags=aside.flags,
        error=_why(result, aside.error),
    )


def _why(result: Scored, error: ItemError | None) -> pb.Error | None:
    return _error(Failed(result.item, result.response, error)) if error else None


def _error(failed: Failed) -> pb.Error:
    return pb.Error(code=failed.error.code, message=failed.error.detail, field=pointer_to(failed))


def _decision(decision: Decision) -> pb.Decision:
    reasons = [
        pb.Reason(rule=each.rule, dimension=each.dimension, value=each.value, threshold=each.threshold)
        for each in decision.reasons
    ]
    return pb.Decision(verdict=decision.verdict, reasons=reasons, margin=decision.margin)


def _timings(t: Timings) -> pb.Timings:
    return pb.Timings(
        decode_ms=t.decode * 1000, queue_ms=t.queue * 1000, inference_ms=t.inference * 1000, total_ms=t.total * 1000
    )


def _six(values: Six) -> pb.Dimensions:
    return pb.Dimensions(**dict(zip(DIMENSIONS, values, strict=True)))
