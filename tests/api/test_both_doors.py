"""The same requests through REST and gRPC: the same numbers to the last bit, the same refusals."""

import asyncio
import math
from dataclasses import replace

import pytest

import pictures
from asking import Answer, NoNumbers, Numbers, Refusal, over_grpc, over_rest, refused
from cases import (
    ANSWER,
    CASES,
    GOOD,
    QUESTION,
    SCAN,
    UNKNOWN_HASH,
    Bad,
    Body,
    Case,
    Ok,
    is_triple,
    items_of,
    responses_of,
    singles,
)
from medreward.api.rest.status import HTTP_STATUS
from medreward.api.rpc.status import GRPC_STATUS
from medreward.errors import Code
from medreward.proto import reward_pb2 as pb
from serving import Server, running
from waiting import until

TRIPLE = {"image": SCAN, "question": QUESTION, "response": ANSWER}


def expected_refusals(case: Case) -> tuple[Refusal | None, Refusal | None]:
    """What REST and what gRPC must refuse the whole request with."""
    if case.refused:
        code = Code(case.refused.code)
        return (
            Refusal(HTTP_STATUS[code], code, case.refused.field),
            Refusal(GRPC_STATUS[code], code, case.refused.field),
        )
    first = case.outcomes[0]
    if is_triple(case.body) and isinstance(first, Bad):  # REST has a status for it, gRPC an item's error
        return Refusal(HTTP_STATUS[Code(first.code)], first.code, pointer("", first.field)), None
    return None, None


def places(case: Case) -> list[tuple[int, int]]:
    return [(i, j) for i, item in enumerate(items_of(case.body)) for j in range(len(responses_of(item)))]


def pointer(item: str, field: str) -> str:
    """Of a field of the item, or of one of the request, which begins with a slash."""
    return field if field.startswith("/") else f"{item}/{field}"


def grpc_field(bad: Bad, response: int) -> str:
    """Items have one form in gRPC: a list of images and a list of responses."""
    return {"image": "images/0", "response": f"responses/{response}"}.get(bad.field, bad.field)


def check(case: Case, answer: Answer, over_grpc: bool) -> None:
    assert isinstance(answer, list)
    for (i, j), outcome, result in zip(places(case), case.outcomes, answer, strict=True):
        assert (result.item, result.response) == (i, j)
        if isinstance(outcome, Bad):
            field = grpc_field(outcome, j) if over_grpc else outcome.field
            assert result == NoNumbers(i, j, outcome.code, pointer(f"/items/{i}", field))
        else:
            assert isinstance(result, Numbers)
            assert result.flags == outcome.flags


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_both_doors_answer_the_same(tiny: Server, case: Case) -> None:
    rest, rpc = await asyncio.gather(
        over_rest(tiny, case.body, case.metadata), over_grpc(tiny, case.body, case.metadata)
    )
    rest_refusal, grpc_refusal = expected_refusals(case)
    if rest_refusal:
        assert rest == rest_refusal
    else:
        check(case, rest, over_grpc=False)
    if grpc_refusal:
        assert rpc == grpc_refusal
    else:
        check(case, rpc, over_grpc=True)
    if isinstance(rest, list) and isinstance(rpc, list):
        assert [result for result in rest if isinstance(result, Numbers)] == [
            result for result in rpc if isinstance(result, Numbers)
        ]


SEVERAL = [case for case in CASES if 1 < len(case.outcomes) <= 8 and any(isinstance(o, Ok) for o in case.outcomes)]


@pytest.mark.parametrize("case", SEVERAL, ids=lambda case: case.name)
async def test_a_response_gets_the_same_numbers_alone(tiny: Server, case: Case) -> None:
    together = await over_rest(tiny, case.body)
    assert isinstance(together, list)
    for result, single in zip(together, singles(case.body), strict=True):
        if isinstance(result, Numbers):
            assert await over_grpc(tiny, single) == [replace(result, item=0, response=0)]


async def test_numbers_are_the_same_in_a_crowd(tiny: Server) -> None:
    bodies = [case.body for case in GOOD if len(case.outcomes) <= 8]
    alone = [await over_rest(tiny, body) for body in bodies]
    crowd = await asyncio.gather(*(door(tiny, body) for body in bodies for door in (over_rest, over_grpc)))
    assert crowd == [answer for answer in alone for _ in (over_rest, over_grpc)]


async def test_numbers_are_the_ones_the_contract_describes(tiny: Server) -> None:
    answer = await over_rest(tiny, TRIPLE | {"weights": {"accuracy": 2, "overall": -0.5}})
    assert isinstance(answer, list)
    result = answer[0]
    assert isinstance(result, Numbers)
    assert result.scores == pytest.approx([1 / (1 + math.exp(-logit)) for logit in result.logits])
    assert result.reward == pytest.approx(2 * result.logits[0] - 0.5 * result.logits[5])
    assert result.uncertainty is not None
    assert all(spread > 0 for spread in result.uncertainty)


async def test_image_question_and_response_each_move_the_score(tiny: Server) -> None:
    variants: list[Body] = [
        TRIPLE,
        TRIPLE | {"response": "No."},
        TRIPLE | {"question": "Why?"},
        TRIPLE | {"image": None},
    ]
    answers = [await over_rest(tiny, body) for body in variants]
    logits = {answer[0].logits for answer in answers if isinstance(answer, list) and isinstance(answer[0], Numbers)}
    assert len(logits) == len(variants)


async def test_an_image_stored_through_one_door_is_known_at_the_other(tiny: Server) -> None:
    inline = await over_rest(tiny, TRIPLE)
    for file in (pictures.jpeg(), pictures.png(77)):
        by_rest = (await tiny.rest.put("/v1/images", content=file)).json()
        by_grpc = await tiny.stub.PutImage(pb.PutImageRequest(data=file))
        assert by_rest == {"sha256": by_grpc.sha256, "width": by_grpc.width, "height": by_grpc.height}
    stored = TRIPLE | {"image": {"sha256": (await tiny.stub.PutImage(pb.PutImageRequest(data=pictures.jpeg()))).sha256}}
    assert await over_rest(tiny, stored) == await over_grpc(tiny, stored) == inline


async def test_a_stored_image_and_an_unknown_one_in_one_request(tiny: Server) -> None:
    stored = (await tiny.rest.put("/v1/images", content=pictures.jpeg())).json()["sha256"]
    items = [
        {"image": {"sha256": digest}, "question": QUESTION, "response": ANSWER} for digest in (stored, UNKNOWN_HASH)
    ]
    rest, rpc = await over_rest(tiny, {"items": items}), await over_grpc(tiny, {"items": items})
    assert isinstance(rest, list)
    assert isinstance(rpc, list)
    assert [rest[0]] == [rpc[0]] == await over_rest(tiny, TRIPLE)
    assert rest[1] == NoNumbers(1, 0, "image_unknown", "/items/1/image")
    assert rpc[1] == NoNumbers(1, 0, "image_unknown", "/items/1/images/0")


async def test_the_right_fingerprint_is_accepted(tiny: Server) -> None:
    asked = {"x-model-fingerprint": tiny.engine.serving.ref.fingerprint}
    assert await over_rest(tiny, TRIPLE, asked) == await over_grpc(tiny, TRIPLE, asked) == await over_rest(tiny, TRIPLE)


async def test_a_deadline_that_passes(slow: Server) -> None:
    soon = {"x-deadline-ms": "1"}
    assert await over_rest(slow, TRIPLE, soon) == Refusal(504, "deadline", "")
    assert await over_grpc(slow, TRIPLE, soon) == Refusal(GRPC_STATUS[Code.DEADLINE], "deadline", "")


async def test_a_deadline_that_passes_for_a_group(slow: Server) -> None:
    body = {"items": [{"question": QUESTION, "responses": ["a", "b"]}] * 2}
    assert await over_rest(slow, body, {"x-deadline-ms": "1"}) == Refusal(504, "deadline", "")


async def test_a_deadline_beside_another_error_leaves_each_item_its_own(slow: Server) -> None:
    body = {"items": [{"question": QUESTION, "response": "a"}, {"question": "", "response": "a"}]}
    assert await over_rest(slow, body, {"x-deadline-ms": "1"}) == [
        NoNumbers(0, 0, "deadline", "/items/0"),
        NoNumbers(1, 0, "empty_question", "/items/1/question"),
    ]


async def test_more_work_than_the_queue_takes() -> None:
    async with running(fake_delay_ms=1500, queue_cost=10) as server:
        first = asyncio.create_task(over_rest(server, TRIPLE))
        await until(lambda: server.engine.state()["cost_admitted"] != 0)
        body = {"items": [TRIPLE]}
        bulk, interactive, rpc = (
            await over_rest(server, TRIPLE),
            await server.rest.post("/score", json=body, headers={"x-lane": "interactive"}),
            await over_grpc(server, TRIPLE),
        )
        assert isinstance(await first, list)
    assert bulk == Refusal(503, "overloaded", "")
    assert (interactive.status_code, interactive.json()["code"]) == (429, "overloaded")
    assert int(interactive.headers["retry-after"]) >= 1
    assert rpc == Refusal(GRPC_STATUS[Code.OVERLOADED], "overloaded", "")


async def test_a_full_queue_refuses_before_anything_is_made_of_the_items() -> None:
    wrong = pb.Item(question=QUESTION, responses=[ANSWER], history=[pb.Turn(role="nobody")])
    async with running(fake_delay_ms=1500, queue_cost=10) as server:
        first = asyncio.create_task(over_rest(server, TRIPLE))
        await until(lambda: server.engine.state()["cost_admitted"] != 0)
        rest = await server.rest.post("/score", content=b"no JSON", headers={"content-type": "application/json"})
        rpc = await refused(server.stub.Score(pb.ScoreRequest(items=[wrong])))
        assert isinstance(await first, list)
    assert (rest.status_code, rest.json()["code"]) == (503, "overloaded")
    assert rpc == Refusal(GRPC_STATUS[Code.OVERLOADED], "overloaded", "")


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf])
async def test_a_weight_that_is_no_number_over_grpc(tiny: Server, weight: float) -> None:
    request = pb.ScoreRequest(
        items=[pb.Item(question=QUESTION, responses=[ANSWER])], weights={"accuracy": 1.0, "overall": weight}
    )
    expected = Refusal(GRPC_STATUS[Code.INVALID_FIELD], "invalid_field", "/weights/overall")
    assert await refused(tiny.stub.Score(request)) == expected
