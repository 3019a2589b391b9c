"""gRPC's `Screen`: the numbers and the verdicts of `POST /v1/screen`."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from asking import Refusal, refused
from cases import QUESTION, SCAN, item, to_message
from keyring import KeysFile, bearer
from medreward.backends.fake import FAKE_MANIFEST
from medreward.proto import reward_pb2 as pb
from medreward.types import DIMENSIONS, Lane
from policies import policy_text, publish, threshold
from serving import Server, running

ITEMS = [
    item(image=SCAN, responses=[f"finding {n}" for n in range(6)], department="ward"),
    item(responses=["yes", ""]),
    item(question="", response="nothing was asked"),
]


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    rules = threshold("bad", "block", 1.0, "overall") + threshold("good", "allow", -0.5)
    text = policy_text(f"{rules}\n[departments.ward]\ngood = 0.0", fingerprint=FAKE_MANIFEST.fingerprint)
    folder = tmp_path_factory.mktemp("policies")
    publish(folder, text)
    async with running(policies=folder, score_cache_bytes=0) as server:
        yield server


def to_screen(items: list[dict[str, Any]], **beside: Any) -> pb.ScreenRequest:
    message = pb.ScreenRequest(items=to_message({"items": items}).items, **beside)
    message.departments.extend(each.get("department", "") for each in items)
    return message


def from_message(reply: pb.ScreenResponse) -> list[dict[str, Any]]:
    """What REST says of each result, in its words."""
    found = []
    for result, decision in zip(reply.results, reply.decisions, strict=True):
        numbers = None
        if result.HasField("logits"):
            numbers = {name: getattr(result.logits, name) for name in DIMENSIONS}
        reasons = [
            {
                "rule": reason.rule,
                "dimension": reason.dimension if reason.HasField("dimension") else None,
                "value": reason.value if reason.HasField("value") else None,
                "threshold": reason.threshold if reason.HasField("threshold") else None,
            }
            for reason in decision.reasons
        ]
        margin = decision.margin if decision.HasField("margin") else None
        found.append({"logits": numbers, "verdict": decision.verdict, "reasons": reasons, "margin": margin})
    return found


async def test_it_answers_as_rest_does_to_the_last_bit(server: Server) -> None:
    rest = (await server.rest.post("/v1/screen", json={"items": ITEMS})).json()
    reply = await server.stub.Screen(to_screen(ITEMS))
    parts = ("logits", "verdict", "reasons", "margin")
    assert from_message(reply) == [{part: result[part] for part in parts} for result in rest["results"]]
    assert {result["verdict"] for result in rest["results"]} == {"allow", "review", "block", "unscored"}
    assert {name: getattr(reply.policy, name) for name in ("name", "version", "digest")} == rest["policy"]
    assert reply.results[-1].error.field == "/items/2/question"
    assert reply.decision_id != rest["decision_id"]


async def test_the_id_of_the_message_comes_back_and_the_lane_is_interactive(server: Server) -> None:
    asked = to_screen(ITEMS[:1])
    asked.request_id = "b6f2d0c45c5c4a4fa8a2ab4b7e6d4a51"
    assert (await server.stub.Screen(asked)).request_id == asked.request_id
    metrics = (await server.admin.get("/metrics")).text
    assert 'code="OK",lane="interactive",route="/medreward.v1.RewardService/Screen"' in metrics


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({"policy": "lax"}, Refusal(grpc.StatusCode.NOT_FOUND, "policy_unknown", "/policy")),
        ({"on_unscored": "allow"}, Refusal(grpc.StatusCode.INVALID_ARGUMENT, "invalid_field", "/on_unscored")),
        ({"lane": "slow"}, Refusal(grpc.StatusCode.INVALID_ARGUMENT, "invalid_field", "X-Lane")),
        (
            {"on_unscored": "problem"},
            Refusal(grpc.StatusCode.INVALID_ARGUMENT, "empty_question", "/items/2/question"),
        ),
    ],
)
async def test_what_is_wrong_ends_the_call(server: Server, beside: dict[str, str], expected: Refusal) -> None:
    assert await refused(server.stub.Screen(to_screen(ITEMS, **beside))) == expected


@pytest.mark.parametrize(("departments", "field"), [(["ward"], "/departments"), (["", "", "w" * 65], "/departments/2")])
async def test_departments_are_one_for_each_item(server: Server, departments: list[str], field: str) -> None:
    asked = pb.ScreenRequest(items=to_message({"items": ITEMS}).items, departments=departments)
    assert await refused(server.stub.Screen(asked)) == Refusal(grpc.StatusCode.INVALID_ARGUMENT, "invalid_field", field)


async def test_it_needs_a_key_of_the_lane(keys: KeysFile) -> None:
    key = keys.new(lanes=[Lane.BULK])
    async with running(keys_file=keys.path) as server:
        asked = pb.ScreenRequest(items=[pb.Item(question=QUESTION, responses=["yes"])])
        assert (await refused(server.stub.Screen(asked))).status is grpc.StatusCode.UNAUTHENTICATED
        assert (await refused(server.stub.Screen(asked, metadata=tuple(bearer(key).items())))).code == "forbidden"
