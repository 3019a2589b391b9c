"""LiteLLM's generic guardrail and OpenAI's moderation: what is not allowed is blocked or flagged, and so is what could
not be scored."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from asking import check_problem
from cases import SCAN
from keyring import KeysFile
from medreward.api.compat.litellm import GuardrailReply
from medreward.api.compat.moderations import ModerationReply
from medreward.backends.fake import FAKE_MANIFEST
from medreward.logs import JsonFormatter
from medreward.types import Lane, Verdict
from pictures import jpeg
from policies import policy_text, publish, threshold
from serving import Server, running

QUESTION, ANSWER = "Is there a fracture?", "No fracture is seen."
DATA_URL = f"data:image/jpeg;base64,{SCAN}"


def write_policies(folder: Path) -> Path:
    """`lax` allows all, but in the department `ward`; `hard` blocks all; `split` allows some."""
    lax = threshold("all", "allow", -99.0) + "[departments.ward]\nall = 99.0\n"
    hard = threshold("each", "block", -99.0, "overall")
    split = threshold("good", "allow", 0.0)
    for name, text in (("lax", lax), ("hard", hard), ("split", split)):
        publish(folder, policy_text(text, name, fingerprint=FAKE_MANIFEST.fingerprint), name)
    return folder


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running(policies=write_policies(tmp_path_factory.mktemp("policies")), default_policy="lax") as server:
        yield server


# LiteLLM


class LiteLlm:
    """Sends what the generic guardrail of LiteLLM 1.110 sends: the conversation with the request, and never again."""

    def __init__(self, rest: httpx.AsyncClient, call: str = "c1", headers: dict[str, str] | None = None) -> None:
        self.rest, self.call, self.headers = rest, call, headers

    async def sends(self, input_type: str, texts: list[str], /, **given: Any) -> dict[str, Any]:
        body = {
            "input_type": input_type,
            "litellm_call_id": self.call,
            "litellm_trace_id": "t1",
            "structured_messages": None,
            "images": None,
            "tools": None,
            "texts": texts,
            "request_data": {"user_api_key_alias": "ward"},
            "request_headers": {"host": "gateway", "authorization": "[present]"},
            "litellm_version": "1.110.2",
            "additional_provider_specific_params": {},
            "tool_calls": None,
            "model": "m",
            **given,
        }
        reply = await self.rest.post("/beta/litellm_basic_guardrail_api", json=body, headers=self.headers)
        assert reply.status_code == 200, reply.text
        GuardrailReply.model_validate_json(reply.content)
        answer: dict[str, Any] = reply.json()
        return answer

    async def asks(self, *messages: dict[str, Any], **given: Any) -> dict[str, Any]:
        return await self.sends("request", [QUESTION], structured_messages=list(messages), **given)

    async def answers(self, *texts: str, policy: str | None = None, **given: Any) -> dict[str, Any]:
        params = {"policy": policy} if policy else {}
        return await self.sends("response", list(texts), **{"additional_provider_specific_params": params, **given})


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


PARTS = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": DATA_URL}}]
SYSTEM = {"role": "system", "content": "Be brief."}


async def test_an_answer_is_screened_with_the_question_and_the_image_of_its_call(server: Server) -> None:
    answers, item = [f"finding {n}" for n in range(16)], {"image": SCAN, "question": QUESTION}
    asked = {"items": [{**item, "responses": answers}], "policy": "split"}
    expected = [each["verdict"] for each in (await server.rest.post("/v1/screen", json=asked)).json()["results"]]
    assert {*expected} == {"allow", "review"}
    litellm = LiteLlm(server.rest, "with-image")
    assert (await litellm.asks(SYSTEM, user(PARTS)))["action"] == "NONE"
    replies = [await litellm.answers(answer, policy="split") for answer in answers]
    assert [reply["verdict"] for reply in replies] == expected
    assert [reply["action"] for reply in replies] == [{"allow": "NONE"}.get(verdict, "BLOCKED") for verdict in expected]
    sent = [
        await LiteLlm(server.rest, "none").answers(answer, policy="split", request_data={"messages": [user(PARTS)]})
        for answer in answers
    ]
    assert [reply["verdict"] for reply in sent] == expected


async def test_images_beside_the_answer_are_taken_where_the_messages_have_none(server: Server) -> None:
    for image in (SCAN, DATA_URL):
        beside: dict[str, Any] = {"images": [image], "structured_messages": [user(QUESTION)]}
        assert (await LiteLlm(server.rest).answers(ANSWER, **beside))["action"] == "NONE"
    broken: dict[str, Any] = {"images": ["no base64"], "structured_messages": [user(QUESTION)]}
    assert "image_invalid" in (await LiteLlm(server.rest).answers(ANSWER, **broken))["blocked_reason"]


async def test_a_path_names_no_file_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "scan.jpeg").write_bytes(jpeg())
    parts = [PARTS[0], {"type": "image_url", "image_url": {"url": "scan.jpeg"}}]
    policies = write_policies(tmp_path / "policies")
    async with running(policies=policies, default_policy="lax", image_root=tmp_path) as server:
        reply = await LiteLlm(server.rest).answers(ANSWER, structured_messages=[user(parts)])
        moderated = {"input": ANSWER, "question": QUESTION, "image": "scan.jpeg"}
        flagged = (await server.rest.post("/v1/moderations", json=moderated)).json()["results"][0]
    assert "unscored: image_invalid" in reply["blocked_reason"]
    assert flagged["error"]["code"] == "image_invalid"


async def test_one_answer_of_several_that_is_not_allowed_blocks_all(server: Server) -> None:
    litellm = LiteLlm(server.rest, "several")
    await litellm.asks(user(QUESTION))
    assert (await litellm.answers("a", "b"))["action"] == "NONE"
    reply = await litellm.answers("a", "b", policy="hard")
    assert reply["action"] == "BLOCKED"
    assert reply["blocked_reason"].startswith("block: each (policy hard 1, decision ")


async def test_the_department_is_that_of_the_parameters(server: Server) -> None:
    litellm = LiteLlm(server.rest, "department")
    await litellm.asks(user(QUESTION))
    params = {"additional_provider_specific_params": {"department": "ward", "threshold": 0.8}}
    assert (await litellm.sends("response", [ANSWER], **params))["verdict"] == "review"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"litellm_call_id": "another"}, "the question is not known"),
        ({"litellm_call_id": None}, "the question is not known"),
        ({"texts": []}, "no answer in texts"),
        ({"texts": None}, "no answer in texts"),
        ({"input_type": "answer"}, "invalid_field"),
        ({"input_type": None}, "invalid_field"),
        ({"texts": [1]}, "invalid_field"),
        ({"additional_provider_specific_params": {"policy": "none"}}, "policy_unknown"),
        ({"structured_messages": [{"role": "tool", "content": "x"}]}, "empty_question"),
        ({"structured_messages": [user("")]}, "unscored: empty_question"),
        ({"structured_messages": [user(QUESTION), {"role": "user"}]}, "unscored"),
        ({"structured_messages": [user(7)]}, "shape of OpenAI's chat"),
        ({"request_data": {"messages": "all"}}, "shape of OpenAI's chat"),
        ({"texts": ["x" * 300_000]}, "unscored: too_long"),
    ],
)
async def test_what_cannot_be_screened_is_blocked(server: Server, given: dict[str, Any], says: str) -> None:
    litellm = LiteLlm(server.rest, "known")
    await litellm.asks(user(QUESTION))
    reply = await litellm.sends("response", [ANSWER], **given)
    assert reply["action"] == "BLOCKED"
    assert says in reply["blocked_reason"]


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b'{"input_type": "response", "input_type": "request"}'])
async def test_a_body_that_is_none_is_blocked(server: Server, body: bytes) -> None:
    reply = await server.rest.post("/beta/litellm_basic_guardrail_api", content=body)
    assert (reply.status_code, reply.json()["action"]) == (200, "BLOCKED")


async def test_a_lone_surrogate_in_a_conversation_is_kept_and_its_answer_unscored(server: Server) -> None:
    call = '"litellm_call_id": "lone"'
    asked = f'{{"input_type": "request", {call}, "structured_messages": [{{"role": "user", "content": "\\ud800"}}]}}'
    said = f'{{"input_type": "response", {call}, "texts": ["yes"]}}'
    replies = [await server.rest.post("/beta/litellm_basic_guardrail_api", content=each) for each in (asked, said)]
    assert [reply.json()["action"] for reply in replies] == ["NONE", "BLOCKED"]
    assert "bad_text" in replies[1].json()["blocked_reason"]


async def test_keys_tenants_and_lanes(keys: KeysFile, tmp_path: Path) -> None:
    first, other, bulk = keys.new(), keys.new(tenant="b"), keys.new(lanes=[Lane.BULK])
    policies = write_policies(tmp_path / "policies")
    async with running(policies=policies, default_policy="lax", keys_file=keys.path) as server:
        mine, theirs = ({"x-api-key": key} for key in (first, other))
        await LiteLlm(server.rest, "c", mine).asks(user(QUESTION))
        assert (await LiteLlm(server.rest, "c", mine).answers(ANSWER))["action"] == "NONE"
        assert (await LiteLlm(server.rest, "c", theirs).answers(ANSWER))["action"] == "BLOCKED"
        refused = await LiteLlm(server.rest, "c", {"x-api-key": bulk}).asks(user(QUESTION))
        assert refused["blocked_reason"].startswith("forbidden")
        check_problem(await server.rest.post("/beta/litellm_basic_guardrail_api", json={}), 401, "unauthenticated")
        wrong = {"x-api-key": first, "authorization": "Bearer mr_x"}
        check_problem(await server.rest.get("/v1/model", headers=wrong), 401, "unauthenticated")


async def test_the_routes_are_interactive_whatever_is_asked_for(server: Server) -> None:
    headers = {"x-lane": "bulk"}
    await LiteLlm(server.rest, headers=headers).asks(user(QUESTION))
    await server.rest.post("/v1/moderations", json={"input": ANSWER, "question": QUESTION}, headers=headers)
    metrics = (await server.admin.get("/metrics")).text
    for route in ("/beta/litellm_basic_guardrail_api", "/v1/moderations"):
        assert f'lane="bulk",route="{route}"' not in metrics
        assert f'medreward_requests_total{{code="200",lane="interactive",route="{route}"}}' in metrics


@pytest.mark.parametrize("kept", ["question", "response", "policy", "department", "image", "call"])
async def test_what_is_sent_is_in_no_log_no_metric_and_no_refusal(
    server: Server, caplog: pytest.LogCaptureFixture, kept: str
) -> None:
    sent = {"question": QUESTION, "response": ANSWER, "policy": "lax", "department": "", "image": SCAN, "call": "c"}
    sent[kept] = "Zoe-Canary-19610417"
    choice = {"policy": sent["policy"], "department": sent["department"]}
    triple = {"question": sent["question"], "response": sent["response"], "image": sent["image"], **choice}
    litellm = LiteLlm(server.rest, sent["call"])
    with caplog.at_level(logging.DEBUG, "medreward"):
        told = [
            (await server.rest.post("/v1/screen", json=triple)).text,
            (await server.rest.post("/v1/moderations", json={**triple, "input": sent["response"]})).text,
            str(await litellm.asks(user(sent["question"]))),
            str(
                await litellm.answers(
                    sent["response"], additional_provider_specific_params=choice, images=[sent["image"]]
                )
            ),
            (await server.admin.get("/metrics")).text,
        ]
    told += [JsonFormatter().format(record) for record in caplog.records if record.name.startswith("medreward")]
    assert len(told) > 8
    assert [each for each in told if "canary" in each.lower()] == []


# OpenAI's moderation


async def moderated(server: Server, **body: Any) -> ModerationReply:
    reply = await server.rest.post("/v1/moderations", json=body)
    assert reply.status_code == 200, reply.text
    return ModerationReply.model_validate_json(reply.content)


async def test_a_moderation_is_the_verdict_of_screen(server: Server) -> None:
    answers = [f"finding {n}" for n in range(16)]
    item = {"image": SCAN, "question": QUESTION, "responses": answers}
    screened = (await server.rest.post("/v1/screen", json={"items": [item], "policy": "split"})).json()["results"]
    reply = await moderated(server, input=answers, question=QUESTION, image=DATA_URL, policy="split")
    for result, expected in zip(reply.results, screened, strict=True):
        assert (result.verdict, result.margin) == (expected["verdict"], expected["margin"])
        assert result.flagged == (result.verdict is not Verdict.ALLOW)
        assert result.categories["review"] == result.categories["accuracy"] == result.flagged
        assert result.category_scores["accuracy"] == 1 - expected["scores"]["accuracy"]
        assert result.category_scores["review"] == float(result.flagged)
        assert result.categories.keys() == result.category_scores.keys() == result.category_applied_input_types.keys()
    assert {result.flagged for result in reply.results} == {True, False}
    assert reply.policy.name == "split"


async def test_an_exchange_in_parts_is_its_images_question_and_answer(server: Server) -> None:
    image = {"type": "image_url", "image_url": {"url": DATA_URL}}
    asked = await moderated(server, input=ANSWER, question=QUESTION, image=SCAN, policy="split")
    for parts, beside in (
        ([*PARTS, {"type": "text", "text": ANSWER}], {}),
        ([image, {"type": "text", "text": ANSWER}], {"question": QUESTION}),
    ):
        reply = await moderated(server, input=parts, policy="split", model="omni-moderation-latest", **beside)
        assert reply.results[0].category_scores == asked.results[0].category_scores
        assert reply.results[0].category_applied_input_types["accuracy"] == ["text", "image"]


async def test_what_cannot_be_scored_is_flagged(server: Server) -> None:
    for body, code in (
        ({"input": ANSWER}, "empty_question"),
        ({"input": [{"type": "text", "text": ANSWER}]}, "empty_question"),
        ({"input": ANSWER, "question": QUESTION, "image": "data:image/png,x"}, "image_invalid"),
        ({"input": ANSWER, "question": QUESTION, "image": "http://127.0.0.1/x.png"}, "image_url_refused"),
        ({"input": ANSWER, "question": QUESTION, "image": "0" * 64}, "image_unknown"),
    ):
        (result,) = (await moderated(server, **body)).results
        assert (result.flagged, result.verdict, result.categories["unscored"]) == (True, Verdict.UNSCORED, True)
        assert result.category_scores["accuracy"] is None
        assert result.error
        assert result.error.code == code


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"input": []}, 422, "invalid_field", "/input"),
        ({"input": [{"type": "image_url", "image_url": {"url": DATA_URL}}]}, 422, "invalid_field", "/input"),
        ({}, 422, "invalid_field", "/input"),
        ({"input": ANSWER, "policy": "none"}, 404, "policy_unknown", "/policy"),
        (
            {"input": [{"text": QUESTION}, {"text": ANSWER}], "question": QUESTION},
            422,
            "invalid_field",
            "/question",
        ),
    ],
)
async def test_a_moderation_that_is_wrong_is_a_problem(
    server: Server, body: dict[str, Any], status: int, code: str, field: str
) -> None:
    check_problem(await server.rest.post("/v1/moderations", json=body), status, code, field)
