"""`POST /v1/screen`: a verdict on each response by the policy of the request, and the pointers of policies."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asking import check_problem
from keyring import KeysFile, bearer
from medreward.api.rest.screen import PoliciesReply, ScreenReply
from medreward.backends.fake import FAKE_MANIFEST
from medreward.errors import ConfigurationError
from medreward.types import Verdict
from policies import policy_text, publish, threshold
from serving import Server, running

TRIPLE = {"question": "Is there a fracture?", "response": "Yes, of the left sixth rib."}
FINGERPRINT = FAKE_MANIFEST.fingerprint


def two_versions(folder: Path) -> Path:
    """Returns the folder of a policy whose current version allows all, and whose other version blocks all."""
    publish(folder, policy_text(threshold("all", "allow", -99.0), fingerprint=FINGERPRINT))
    publish(folder, policy_text(threshold("none", "allow", 99.0), fingerprint=FINGERPRINT, version="2"), version="2")
    (folder / "strict" / "current").write_text("1\n")
    return folder


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running(policies=two_versions(tmp_path_factory.mktemp("policies"))) as server:
        yield server


async def test_answer_is_that_of_score_and_the_decision(server: Server) -> None:
    screened = await server.rest.post("/v1/screen", json=TRIPLE)
    scored = (await server.rest.post("/v1/score", json=TRIPLE)).json()
    reply = ScreenReply.model_validate_json(screened.content)
    result = reply.results[0]
    assert result.logits is not None
    assert result.verdict is Verdict.ALLOW
    assert result.reasons[0].rule == "all"
    assert result.logits.accuracy is not None
    assert result.margin == result.logits.accuracy + 99.0
    assert (reply.policy.name, reply.policy.version) == ("strict", "1")
    assert reply.decision_id
    assert screened.json()["results"][0]["logits"] == scored["results"][0]["logits"]


async def test_each_item_of_many_has_its_verdict(server: Server) -> None:
    items = [{"question": "q?", "responses": ["yes", "no"]}, {"question": "", "response": "a"}]
    results = (await server.rest.post("/v1/screen", json={"items": items})).json()["results"]
    assert [result["verdict"] for result in results] == ["allow", "allow", "unscored"]
    assert results[2]["error"]["field"] == "/items/1/question"


async def test_problem_is_the_first_error_where_it_is_asked_for(server: Server) -> None:
    reply = await server.rest.post("/v1/screen", json={**TRIPLE, "question": "", "on_unscored": "problem"})
    check_problem(reply, 422, "empty_question", "/question")


async def test_screening_is_interactive(server: Server) -> None:
    await server.rest.post("/v1/screen", json=TRIPLE)
    metrics = (await server.admin.get("/metrics")).text
    assert 'medreward_requests_total{code="200",lane="interactive",route="/v1/screen"}' in metrics
    assert 'medreward_verdicts_total{policy="strict",verdict="allow"}' in metrics
    assert 'medreward_verdicts_total{policy="strict",verdict="block"} 0.0' in metrics


async def test_unknown_policy_is_refused(server: Server) -> None:
    reply = await server.rest.post("/v1/screen", json={**TRIPLE, "policy": "../strict"})
    check_problem(reply, 404, "policy_unknown", "/policy")


async def test_server_without_policies_says_how_to_get_one() -> None:
    async with running() as server:
        reply = await server.rest.post("/v1/screen", json=TRIPLE)
        check_problem(reply, 404, "policy_unknown", "/policy")
        assert "docs/screening.md" in reply.json()["detail"]
        assert (await server.rest.get("/v1/policies")).json() == {"policies": []}


async def test_pointer_moves_forth_and_back_and_outlives_the_server(tmp_path: Path) -> None:
    async with running(policies=two_versions(tmp_path)) as server:
        path = "/admin/policies/strict/current"
        assert (await server.admin.post(path, json={"version": "2"})).json()["version"] == "2"
        listed = PoliciesReply.model_validate_json((await server.rest.get("/v1/policies")).content).policies[0]
        assert (listed.version, listed.versions) == ("2", ["1", "2"])
        reply = (await server.rest.post("/v1/screen", json=TRIPLE)).json()
        assert (reply["results"][0]["verdict"], reply["policy"]["version"]) == ("review", "2")
        check_problem(await server.admin.post(path, json={"version": "3"}), 404, "policy_unknown", "/version")
    async with running(policies=tmp_path) as server:
        assert (await server.rest.get("/v1/policies")).json()["policies"][0]["version"] == "2"
        await server.admin.post(path, json={"version": "1"})
        assert (await server.rest.post("/v1/screen", json=TRIPLE)).json()["results"][0]["verdict"] == "allow"


async def test_version_that_changed_or_is_of_another_model_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    async with running(policies=two_versions(tmp_path)) as server:
        path = "/admin/policies/strict/current"
        publish(tmp_path, policy_text(threshold("all", "allow", 0.0), version="3"), version="3")
        check_problem(await server.admin.post(path, json={"version": "3"}), 409, "policy_refused", "/version")
        publish(tmp_path, policy_text(threshold("all", "allow", 1.0), fingerprint=FINGERPRINT))
        changed = await server.admin.post(path, json={"version": "1"})
        check_problem(changed, 409, "policy_refused", "/version")
        assert "changed since it was published" in changed.json()["detail"]
        assert (await server.rest.post("/v1/screen", json=TRIPLE)).json()["results"][0]["verdict"] == "allow"


async def test_policy_of_another_model_stops_the_start(tmp_path: Path) -> None:
    publish(tmp_path, policy_text(threshold("all", "allow", 0.0)))
    with pytest.raises(ConfigurationError, match="thresholds do not carry over"):
        async with running(policies=tmp_path):
            pass


async def test_several_versions_without_a_pointer_stop_the_start(tmp_path: Path) -> None:
    (two_versions(tmp_path) / "strict" / "current").unlink()
    with pytest.raises(ConfigurationError, match="has several versions: write the one to use into"):
        async with running(policies=tmp_path):
            pass


async def test_pointer_needs_the_admin_scope(tmp_path: Path, keys: KeysFile) -> None:
    key = keys.new()
    async with running(policies=two_versions(tmp_path / "policies"), keys_file=keys.path) as server:
        reply = await server.admin.post("/admin/policies/strict/current", json={"version": "2"}, headers=bearer(key))
        check_problem(reply, 403, "forbidden")


async def test_sentences_of_a_verdict_are_explained_and_charged(tmp_path: Path, keys: KeysFile) -> None:
    key = keys.new(triples_per_second=0.3)  # three triples at once
    body = {**TRIPLE, "response": "It is broken. It is long. It is old.", "options": {"explain": "sentences"}}
    async with running(policies=two_versions(tmp_path / "policies"), keys_file=keys.path) as server:
        reply = await server.rest.post("/v1/screen", json=body, headers=bearer(key))
        assert len(reply.json()["results"][0]["explain"]) == 3  # more than the quota holds, but it was full
        again = await server.rest.post("/v1/screen", json=body, headers=bearer(key))
        check_problem(again, 429, "quota_exceeded")
