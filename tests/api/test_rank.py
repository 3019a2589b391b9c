"""The order of several responses: the same through both doors and from the client."""

import math
from typing import Any

import pytest

from asking import check_problem, refused
from cases import SCAN, Body, to_message
from keyring import KeysFile, bearer
from medreward.api.rest.rank import RankReply
from medreward.clients import AsyncClient
from medreward.types import DIMENSIONS
from serving import Server, running

QUESTION = "Is there a fracture?"
RESPONSES = ["No.", "Yes, of the 6th rib.", "bad\x01", "Yes, of the 6th  rib.", ""]
WEIGHTS = {"accuracy": 2.0, "creativity": -0.5, "overall": 0.3}


def asked(*responses: str, **beside: Any) -> Body:
    return {"image": SCAN, "question": QUESTION, "responses": list(responses), **beside}


async def ranked(server: Server, body: Body) -> dict[str, Any]:
    """What both doors answer, which is the same."""
    reply = await server.rest.post("/v1/rank", json=body)
    assert reply.status_code == 200, reply.text
    RankReply.model_validate_json(reply.content)  # the shape that openapi.json shows
    by_rest: dict[str, Any] = reply.json()
    message = await server.stub.Rank(to_message({"items": [body], **body}))
    assert by_rest["order"] == list(message.order)
    assert by_rest["ties"] == [list(tie.responses) for tie in message.ties]
    assert by_rest["unscored"] == list(message.unscored)
    assert len(message.results) == len(by_rest["results"])
    if by_rest["first_beats_second"] is None:
        assert not message.HasField("first_beats_second")
        assert not message.HasField("by_dimension")
    else:
        assert by_rest["first_beats_second"] == message.first_beats_second
        assert by_rest["by_dimension"] == {name: getattr(message.by_dimension, name) for name in DIMENSIONS}
    return by_rest


async def test_responses_are_ordered_by_the_rewards_that_score_gives(fake: Server) -> None:
    body = asked(*RESPONSES, weights=WEIGHTS)
    reply = await ranked(fake, body)
    scored = (await fake.rest.post("/score", json={"items": [asked(*RESPONSES)], "weights": WEIGHTS})).json()["results"]
    rewards = [result["reward"] for result in scored]
    assert [result["reward"] for result in reply["results"]] == rewards
    assert reply["ties"] == [[1, 3]]  # the same words to this model
    assert reply["unscored"] == [2]
    assert reply["order"] == sorted(range(5), key=lambda i: (-(rewards[i] if i != 2 else -math.inf), i))
    assert reply["results"][2]["error"]["field"] == "/responses/2"


async def test_the_probability_is_that_of_the_weighted_mean_of_the_logits_whatever_the_size_of_weights(
    fake: Server,
) -> None:
    responses = RESPONSES[:2]
    one = await ranked(fake, asked(*responses, weights=WEIGHTS))
    ten = await ranked(fake, asked(*responses, weights={name: 10 * weight for name, weight in WEIGHTS.items()}))
    first, second = (one["results"][place] for place in one["order"])
    mean = (first["reward"] - second["reward"]) / 2.8
    assert one["first_beats_second"] == pytest.approx(1 / (1 + math.exp(-mean)), abs=1e-12)
    assert ten["first_beats_second"] == pytest.approx(one["first_beats_second"], abs=1e-12)
    for name, probability in one["by_dimension"].items():
        gap = first["logits"][name] - second["logits"][name]
        assert probability == pytest.approx(1 / (1 + math.exp(-gap)), abs=1e-12)


async def test_of_one_score_there_is_no_probability_and_of_none_an_order_all_the_same(fake: Server) -> None:
    alone = await ranked(fake, asked("bad\x01", "No."))
    assert (alone["order"], alone["unscored"], alone["first_beats_second"]) == ([1, 0], [0], None)
    none = await ranked(fake, asked("bad\x01", "\x02"))
    assert (none["order"], none["unscored"], none["ties"]) == ([0, 1], [0, 1], [])


async def test_the_client_ranks_as_the_server_does_over_both_doors(fake: Server) -> None:
    for weights in (None, WEIGHTS):
        reply = await ranked(fake, asked(*RESPONSES) | ({"weights": weights} if weights else {}))
        for url in (f"http://127.0.0.1:{fake.port}", f"grpc://{fake.grpc_target}"):
            async with AsyncClient(url) as client:
                best = await client.best(base64_image(), QUESTION, RESPONSES, weights=weights)
            assert best.response == RESPONSES[reply["order"][0]]
            assert [*best.order] == reply["order"]
            assert [[*tie] for tie in best.ties] == reply["ties"]
            assert [*best.unscored] == reply["unscored"]
            assert best.first_beats_second == reply["first_beats_second"]
            assert best.by_dimension == reply["by_dimension"]
            assert [score.reward for score in best.scores] == [result["reward"] for result in reply["results"]]


async def test_of_nothing_scored_the_client_gives_no_best(fake: Server) -> None:
    async with AsyncClient(f"http://127.0.0.1:{fake.port}") as client:
        best = await client.best(None, QUESTION, ["bad\x01"])
        nothing = await client.best(None, QUESTION, [])
    assert (best.response, best.unscored, best.scores[0].error) == (None, (0,), "bad_text")
    assert (nothing.response, nothing.order) == (None, ())


def base64_image() -> bytes:
    import base64

    return base64.b64decode(SCAN)


# what is refused


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (asked(), "invalid_field", "/responses"),
        ({"question": "q", "response": "r"}, "unknown_field", "/response"),
        ({"items": [asked("a")]}, "unknown_field", "/items"),
        (asked("a", "b", weights={"beauty": 1}), "invalid_field", "/weights"),
        (asked("a", "b", options={"steps": []}), "invalid_field", "/options/steps"),
    ],
)
async def test_a_body_that_is_no_group_is_refused(fake: Server, body: Body, code: str, field: str) -> None:
    reply = await fake.rest.post("/v1/rank", json=body)
    problem = reply.json()
    if "responses" not in body:  # what is missing may be said first
        assert reply.status_code == 422
        return
    check_problem(reply, 422, code, field)
    assert problem["detail"]


async def test_more_responses_than_an_item_may_have_are_refused(fake: Server) -> None:
    check_problem(await fake.rest.post("/v1/rank", json=asked(*["a"] * 257)), 413, "too_many", "/responses")


async def test_a_call_ranks_one_item(fake: Server) -> None:
    refusal = await refused(fake.stub.Rank(to_message({"items": [asked("a"), asked("b")]})))
    assert (refusal.code, refusal.field) == ("invalid_field", "/items")


async def test_ranking_is_counted_by_its_route_and_charged_for_each_response(keys: KeysFile) -> None:
    key = keys.new(triples_per_second=0.5)  # five at once
    async with running(keys_file=keys.path) as server:
        assert (await server.rest.post("/v1/rank", json=asked("a"))).status_code == 401
        reply = await server.rest.post(
            "/v1/rank", json=asked(*"abcde"), headers=bearer(key) | {"X-Lane": "interactive"}
        )
        assert reply.status_code == 200, reply.text
        over = await server.rest.post("/v1/rank", json=asked("a"), headers=bearer(key))
        value = server.engine.metrics.registry.get_sample_value
        labels = {"route": "/v1/rank", "lane": "interactive", "code": "200"}
        assert value("medreward_requests_total", labels) == 1
    check_problem(over, 503, "quota_exceeded")
