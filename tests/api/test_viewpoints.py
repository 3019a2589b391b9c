"""Named weightings of the dimensions: through both doors, trainers' routes and the client."""

import asyncio
import math
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import pictures
from asking import Refusal, check_problem, over_grpc, over_rest, post
from cases import SCAN, Body, to_message
from medreward.api.rest.reply_shapes import ModelReply, ScoreReply
from medreward.clients import AsyncClient, Refused
from medreward.clients.rewarding import RewardSource
from medreward.clients.shaping import Shaping, normalised
from medreward.clients.trl import reward_funcs
from medreward.proto import reward_pb2 as pb
from serving import Server, running

VIEWPOINTS = {
    "safety": {"accuracy": 2.0, "overall": 0.5},
    "talk": {"relevance": 1.0, "responsiveness": -0.25},
}
PROMPTS, ANSWERS = ["What is this?"] * 2, ["A rib.", "No, it is none."]
TABLES = """
[viewpoints.safety]
title = "Safety first"
source = "a made-up guideline, section 2"
weights = { accuracy = 2.0, overall = 0.5 }

[viewpoints.talk]
title = "How to talk to patients"
source = "a made-up guideline, section 7"
weights = { relevance = 1.0, responsiveness = -0.25 }
"""


@pytest.fixture(scope="module")
async def guided(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server of a copy of the small model whose manifest has two viewpoints."""
    folder = tmp_path_factory.mktemp("models") / "guided"
    shutil.copytree(tiny_folder, folder)
    with (folder / "model.toml").open("a") as manifest:
        manifest.write(TABLES)
    async with running(model=str(folder)) as server:
        yield server


def asked(**beside: Any) -> Body:
    return {"items": [{"image": SCAN, "question": "What is this?", "responses": ["A rib.", "No."]}], **beside}


def under(viewpoint: str, logits: dict[str, float]) -> float:
    return math.fsum(weight * logits[name] for name, weight in VIEWPOINTS[viewpoint].items())


async def test_the_reward_follows_the_viewpoint_and_equals_its_weights_given_by_hand(guided: Server) -> None:
    by_name, by_hand, usual = [
        await over_rest(guided, asked(**beside))
        for beside in ({"viewpoint": "safety"}, {"weights": VIEWPOINTS["safety"]}, {})
    ]
    assert by_name == by_hand != usual
    assert await over_grpc(guided, asked(viewpoint="safety")) == by_name


async def test_all_viewpoints_come_with_their_rewards_and_how_far_they_lie_apart(guided: Server) -> None:
    body = asked(viewpoint="talk", options={"viewpoints": "all"})
    reply = await post(guided, body)
    ScoreReply.model_validate_json(reply.content)
    by_grpc = (await guided.stub.Score(to_message(body))).results
    for result, message in zip(reply.json()["results"], by_grpc, strict=True):
        rewards = {name: under(name, result["logits"]) for name in VIEWPOINTS}
        assert result["viewpoints"] == rewards
        assert result["reward"] == rewards["talk"]
        assert result["viewpoint_spread"] == max(rewards.values()) - min(rewards.values())
        assert dict(message.viewpoints) == rewards
        assert message.viewpoint_spread == result["viewpoint_spread"]


async def test_who_does_not_ask_for_viewpoints_gets_none(guided: Server) -> None:
    result = (await post(guided, asked())).json()["results"][0]
    assert "viewpoints" not in result
    assert "viewpoint_spread" not in result


async def test_a_model_without_viewpoints_has_no_reward_under_any(tiny: Server) -> None:
    body = asked(options={"viewpoints": "all"})
    result = (await post(tiny, body)).json()["results"][0]
    assert (result["viewpoints"], result["viewpoint_spread"]) == ({}, None)
    assert not (await tiny.stub.Score(to_message(body))).results[0].HasField("viewpoint_spread")


@pytest.mark.parametrize(
    ("beside", "code"),
    [
        ({"viewpoint": "saftey"}, "viewpoint_unknown"),
        ({"viewpoint": "talk", "weights": {"overall": 1}}, "invalid_field"),
    ],
)
async def test_a_viewpoint_that_cannot_be_meant_is_refused_at_both_doors(
    guided: Server, beside: dict[str, Any], code: str
) -> None:
    check_problem(await post(guided, asked(**beside)), 422, code, "/viewpoint")
    refusal = await over_grpc(guided, asked(**beside))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.field) == (code, "/viewpoint")


async def test_the_refusal_of_an_unknown_name_says_which_there_are(guided: Server, tiny: Server) -> None:
    assert "safety, talk" in (await post(guided, asked(viewpoint="x"))).json()["detail"]
    assert "it has none" in (await post(tiny, asked(viewpoint="x"))).json()["detail"]


async def test_the_model_lists_its_viewpoints_with_their_guidelines(guided: Server) -> None:
    about = ModelReply.model_validate_json((await guided.rest.get("/v1/model")).content)
    assert {name: each.weights for name, each in about.viewpoints.items()} == VIEWPOINTS
    assert about.viewpoints["talk"].title == "How to talk to patients"
    model = await guided.stub.GetModel(pb.GetModelRequest())
    assert {name: dict(each.weights) for name, each in model.viewpoints.items()} == VIEWPOINTS
    assert model.viewpoints["safety"].source == "a made-up guideline, section 2"


async def test_a_trainers_route_takes_the_viewpoint_in_its_query(guided: Server) -> None:
    body = {"query": ["What is this?\nA rib."], "prompts": ["What is this?\n"]}
    reply = (await guided.rest.post("/get_reward?viewpoint=safety", json=body)).json()
    logits = {name: values[0] for name, values in reply["extra_logs"].items()}
    assert reply["rewards"] == [under("safety", logits)]
    refused = await guided.rest.post("/get_reward?viewpoint=safety&weights=overall:1", json=body)
    assert refused.status_code == 422


async def test_nemo_gym_gets_components_that_add_up_to_the_reward_under_the_viewpoint(guided: Server) -> None:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A rib."}]}
    asked = {"input": [{"role": "user", "content": [{"type": "input_text", "text": "What is this?"}]}]}
    body = {"responses_create_params": asked, "response": {"id": "resp_1", "output": [said]}}
    reply = (await guided.rest.post("/verify?viewpoint=talk", json=body)).json()
    assert reply["reward"] == pytest.approx(sum(reply["reward_components"].values()))
    assert reply["reward_components"]["accuracy"] == 0


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_the_client_takes_a_viewpoint_and_gives_the_rewards_under_all(guided: Server, scheme: str) -> None:
    port = guided.port if scheme == "http" else guided.grpc_port
    async with AsyncClient(f"{scheme}://127.0.0.1:{port}") as client:
        [score] = await client.score(None, "q", ["A rib."], viewpoint="talk", viewpoints="all")
        [plain] = await client.score(None, "q", ["A rib."])
        with pytest.raises(Refused, match="safety, talk"):
            await client.score(None, "q", ["A rib.", "No."], viewpoint="x")
        with pytest.raises(ValueError, match="exclude each other"):
            await client.score(None, "q", ["A rib."], viewpoint="talk", weights={"overall": 1})
    assert score.viewpoints is not None
    assert score.reward == score.viewpoints["talk"]
    assert score.viewpoint_spread == abs(score.viewpoints["talk"] - score.viewpoints["safety"])
    assert (plain.viewpoints, plain.viewpoint_spread) == (None, None)


async def test_trls_reward_is_that_under_the_viewpoint(guided: Server) -> None:
    [function] = reward_funcs(f"http://127.0.0.1:{guided.port}", viewpoint="talk", allow_text_only=True)
    rewards = await asyncio.to_thread(function, PROMPTS, ANSWERS)
    assert rewards == await rewards_under(guided, "talk")
    function.batches.client.close()


async def test_trl_gets_guideline_based_advantages(guided: Server) -> None:
    shaping = Shaping(normalise_viewpoints=True)
    [function] = reward_funcs(f"http://127.0.0.1:{guided.port}", shaping=shaping, allow_text_only=True)
    rewards = await asyncio.to_thread(function, PROMPTS, ANSWERS)
    by_viewpoint = [normalised(await rewards_under(guided, name), [0, 0]) for name in VIEWPOINTS]
    assert rewards == pytest.approx([sum(filter(None, column)) / 2 for column in zip(*by_viewpoint, strict=True)])
    function.batches.client.close()


async def rewards_under(server: Server, viewpoint: str) -> list[float]:
    body = {"items": [{"question": PROMPTS[0], "responses": ANSWERS}], "viewpoint": viewpoint}
    return [result["reward"] for result in (await post(server, body)).json()["results"]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"viewpoint": "talk", "weights": {"overall": 1}},
        {"viewpoint": "talk", "per_dimension": True},
        {"shaping": Shaping(normalise_viewpoints=True), "viewpoint": "talk"},
    ],
)
def test_two_weightings_at_once_are_refused_before_training(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leave"):
        reward_funcs("http://127.0.0.1:1", **wrong)
    with pytest.raises(ValueError, match="exclude each other"):
        RewardSource("http://127.0.0.1:1", weights={"overall": 1}, viewpoint="talk")


async def test_a_ranking_follows_the_viewpoint_from_both_doors_and_the_client(guided: Server) -> None:
    responses = ["A rib.", "No.", "It is a rib, and it is broken."]
    item = {"image": SCAN, "question": "What is this?", "responses": responses}
    by_rest = (await guided.rest.post("/v1/rank", json={**item, "viewpoint": "talk"})).json()
    rewards = [result["reward"] for result in by_rest["results"]]
    first, second = by_rest["order"][:2]
    assert rewards[first] >= rewards[second] == sorted(rewards)[1]
    assert by_rest["first_beats_second"] == pytest.approx(1 / (1 + math.exp((rewards[second] - rewards[first]) / 1.25)))
    by_grpc = await guided.stub.Rank(to_message({"items": [item], "viewpoint": "talk"}))
    assert (list(by_grpc.order), by_grpc.first_beats_second) == (by_rest["order"], by_rest["first_beats_second"])
    for url in (f"http://127.0.0.1:{guided.port}", f"grpc://{guided.grpc_target}"):
        async with AsyncClient(url) as client:
            best = await client.best(pictures.jpeg(), "What is this?", responses, viewpoint="talk")
        assert (list(best.order), best.first_beats_second) == (by_rest["order"], by_rest["first_beats_second"])
