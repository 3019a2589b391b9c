"""The audit log of a running server: what is in an entry, overrides, and what happens when the disk is slow or full."""

import asyncio
import hashlib
import json
import logging
import os
import threading
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

import pictures
from asking import check_problem
from audits import read_entries, room_for
from keyring import KeysFile, bearer
from medreward.api.access.keys import Scope
from medreward.api.rest.decisions import OverrideReply
from medreward.api.state_shapes import StateReply
from medreward.backends.fake import FAKE_MANIFEST
from medreward.errors import ConfigurationError
from medreward.screening.audit import account
from medreward.screening.audit.files import files_of
from medreward.screening.audit.key import AuditKey, read_key
from medreward.screening.audit.verify import verify
from policies import policy_text, publish, threshold
from serving import Server, running
from waiting import until

TRIPLE = {"question": "Is there a fracture?", "response": "Yes, of the left sixth rib."}
CANARY = "Zoe-Canary-19610417"
REASON = {"verdict": "block", "reason": "the fracture is on the right"}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Allows all; the department of surgery has a threshold of its own."""
    folder = tmp_path_factory.mktemp("policies")
    department = "[departments.surgery]\nall = 99.0\n"
    publish(folder, policy_text(threshold("all", "allow", -99.0) + department, fingerprint=FAKE_MANIFEST.fingerprint))
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="module")
async def server(policies: Path, file: Path) -> AsyncIterator[Server]:
    async with running(policies=policies, audit=file) as server:
        yield server


@pytest.fixture
def key(server: Server, file: Path) -> AuditKey:
    return read_key(file.with_name("audit.jsonl.key"))


async def screened(server: Server, **beside: Any) -> dict[str, Any]:
    reply = await server.rest.post("/v1/screen", json=TRIPLE | beside)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def entry_of(file: Path, decision_id: str) -> dict[str, Any]:
    return next(entry for entry in read_entries(*files_of(file)) if entry.get("decision_id") == decision_id)


def size_of(file: Path) -> int:
    return file.stat().st_size


def metric(server: Server, name: str) -> float:
    value = server.engine.metrics.registry.get_sample_value(name)
    assert value is not None
    return value


async def state(server: Server) -> dict[str, Any]:
    reply = await server.admin.get("/admin/state")
    StateReply.model_validate_json(reply.content)
    audit: dict[str, Any] = reply.json()["audit"]
    return audit


async def test_an_entry_says_who_decided_what_by_which_policy_and_model(
    server: Server, file: Path, key: AuditKey
) -> None:
    reply = await server.rest.post("/v1/screen", json=TRIPLE, headers={"X-Request-Id": "the-request"})
    answer = reply.json()
    entry = entry_of(file, answer["decision_id"])
    assert entry["request_id"] == "the-request"
    assert entry["policy"] == answer["policy"]
    assert entry["model"].items() <= answer["model"].items()
    (result,), (answered,) = entry["results"], answer["results"]
    assert (result["verdict"], result["rule"], result["error"]) == ("allow", "all", None)
    subject = result["subject"]
    for same in ("scores", "logits", "uncertainty", "reward", "margin", "reasons", "flags"):
        assert subject[same] == answered[same], same
    assert (subject["question"], subject["response"]) == (
        key.digest(TRIPLE["question"]),
        key.digest(TRIPLE["response"]),
    )
    assert subject["images"] == []
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(entry["time"])) < timedelta(minutes=5)
    assert verify(files_of(file), key.secret).ok


async def test_the_image_is_named_by_the_digest_of_the_file_that_was_scored(
    server: Server, file: Path, key: AuditKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pictures.png()
    hash_ = (await server.rest.put("/v1/images", content=image)).json()["sha256"]

    class Site:
        async def fetch(self, url: str, allowance: object) -> bytes:
            return image

        def close(self) -> None: ...

    monkeypatch.setattr(server.engine.images, "_fetcher", Site())
    for source in (b64encode(image).decode(), {"sha256": hash_}, {"url": "https://images.example/1"}):
        answer = await screened(server, image=source)
        assert entry_of(file, answer["decision_id"])["results"][0]["subject"]["images"] == [key.digest(image)]


async def test_each_response_has_its_result_and_what_is_not_scored_its_error(
    server: Server, file: Path, key: AuditKey
) -> None:
    broken = b64encode(b"no image").decode()
    items = [{"question": "q?", "responses": ["yes", "no"]}, {"image": broken, "question": "q?", "response": "a"}]
    answer = (await server.rest.post("/v1/screen", json={"items": items})).json()
    results = entry_of(file, answer["decision_id"])["results"]
    assert [(result["item"], result["response"], result["verdict"]) for result in results] == [
        *((0, 0, "allow"), (0, 1, "allow")),
        (1, 0, "unscored"),
    ]
    assert (results[2]["error"], results[2]["rule"]) == (answer["results"][2]["error"]["code"], None)
    assert results[2]["subject"]["images"] == [key.digest(b"no image")]
    assert results[2]["subject"]["scores"] is None


async def test_a_decision_by_the_threshold_of_a_department_names_it(server: Server, file: Path) -> None:
    answers = [await screened(server, department=name) for name in ("surgery", CANARY)]
    results = [entry_of(file, answer["decision_id"])["results"][0] for answer in answers]
    assert [(result["verdict"], result["department"]) for result in results] == [("review", "surgery"), ("allow", "")]


async def test_a_decision_of_a_server_that_cannot_score_is_in_the_log(
    server: Server, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.engine, "_draining", True)
    entry = entry_of(file, (await screened(server))["decision_id"])
    assert (entry["results"][0]["verdict"], entry["results"][0]["error"]) == ("unscored", "not_ready")


async def test_an_override_is_an_entry(server: Server, file: Path, key: AuditKey) -> None:
    decision_id = (await screened(server))["decision_id"]
    reply = await server.rest.post(f"/v1/decisions/{decision_id}/override", json=REASON)
    told = OverrideReply.model_validate_json(reply.content)
    assert (told.decided, told.verdict, told.item, told.response) == ("allow", "block", 0, 0)
    entry = read_entries(file)[-1]
    assert (entry["event"], entry["decision_id"], entry["verdict"]) == ("override", decision_id, "block")
    assert entry["subject"]["reason"] == REASON["reason"]
    assert verify(files_of(file), key.secret).ok


async def test_an_override_of_one_of_several_responses_names_it(server: Server, file: Path) -> None:
    items = [{"question": "q?", "responses": ["yes", "no"]}]
    decision_id = (await server.rest.post("/v1/screen", json={"items": items})).json()["decision_id"]
    path = f"/v1/decisions/{decision_id}/override"
    check_problem(await server.rest.post(path, json=REASON), 422, "invalid_field", "/response")
    check_problem(await server.rest.post(path, json=REASON | {"response": 2}), 422, "invalid_field", "/response")
    assert (await server.rest.post(path, json=REASON | {"item": 0, "response": 1})).status_code == 200
    assert read_entries(file)[-1]["response"] == 1


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"verdict": "unscored"}, "invalid_field", "/verdict"),
        ({"reason": " "}, "invalid_field", "/reason"),
        ({"reason": "x" * 501}, "invalid_field", "/reason"),
        ({"reason": "two\nlines"}, "invalid_field", "/reason"),
        ({"reason": "\ud800"}, "invalid_field", "/reason"),
        ({"why": "x"}, "unknown_field", "/why"),
    ],
)
async def test_an_override_that_is_wrong_is_refused(
    server: Server, change: dict[str, str], code: str, field: str
) -> None:
    path = f"/v1/decisions/{(await screened(server))['decision_id']}/override"
    check_problem(await server.rest.post(path, content=json.dumps(REASON | change)), 422, code, field)


@pytest.mark.parametrize("decision_id", ["0" * 32, "0" * 31, CANARY, '"'])
async def test_an_override_of_an_unknown_decision_is_404(server: Server, decision_id: str) -> None:
    reply = await server.rest.post(f"/v1/decisions/{decision_id}/override", json=REASON)
    check_problem(reply, 404, "not_found")
    assert CANARY not in reply.text


async def test_a_decision_of_an_older_file_or_of_a_run_before_is_found_in_the_log(
    policies: Path, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    settings: dict[str, Any] = {"policies": policies, "audit": log, "audit_bytes": 2000}
    async with running(**settings) as server:
        first = [(await screened(server))["decision_id"] for _ in range(4)]
    assert len(files_of(log)) > 2
    async with running(**settings) as server:
        reply = await server.rest.post(f"/v1/decisions/{first[0]}/override", json=REASON)
        assert reply.json()["decided"] == "allow"


async def test_the_key_may_lie_elsewhere_and_a_broken_one_stops_the_start(policies: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"policies": policies, "audit": tmp_path / "audit.jsonl"}
    settings["audit_key_file"] = key_file = tmp_path / "secret"
    async with running(**settings) as server:
        await screened(server)
    assert verify([settings["audit"]], read_key(key_file).secret).ok
    key_file.write_text("not a key\n")
    with pytest.raises(ConfigurationError, match="64 hex digits"):
        async with running(**settings):
            pass


async def test_without_an_audit_log_an_override_says_so(policies: Path) -> None:
    async with running(policies=policies) as server:
        path = f"/v1/decisions/{(await screened(server))['decision_id']}/override"
        reply = await server.rest.post(path, json=REASON)
        check_problem(reply, 409, "audit_off")
        assert "--audit" in reply.json()["detail"]
        check_problem(await server.admin.post("/admin/audit/erase", json={}), 409, "audit_off")
        assert await state(server) is None


async def test_an_override_needs_a_key_of_that_scope_and_tenant(policies: Path, keys_file: KeysFile) -> None:
    score, both = keys_file.new(), keys_file.new(scopes=[Scope.SCORE, Scope.OVERRIDE])
    alone, other = (keys_file.new(tenant, scopes=[Scope.OVERRIDE]) for tenant in "ab")
    file = keys_file.path.with_name("audit.jsonl")
    async with running(policies=policies, audit=file, keys_file=keys_file.path) as server:
        screened = await server.rest.post("/v1/screen", json=TRIPLE, headers=bearer(score))
        path = f"/v1/decisions/{screened.json()['decision_id']}/override"

        async def overridden(key: str) -> httpx.Response:
            return await server.rest.post(path, json=REASON, headers=bearer(key))

        check_problem(await overridden(score), 403, "forbidden")
        check_problem(await overridden(other), 404, "not_found")
        assert [(await overridden(key)).status_code for key in (both, alone)] == [200, 200]
        refused = await server.rest.post("/v1/screen", json=TRIPLE, headers=bearer(alone))
        check_problem(refused, 403, "forbidden")
    decision, *overrides = [entry for entry in read_entries(file) if entry["event"] != "open"]
    assert (decision["key"], decision["tenant"]) == (score.split("_")[1], "a")
    assert [override["key"] for override in overrides] == [key.split("_")[1] for key in (both, alone)]


@pytest.fixture
def keys_file(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.jsonl")


class SlowDisk:
    """A disk whose fsync ends when it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self.go_on = threading.Event()
        self._sync = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self.sync)

    def sync(self, fd: int) -> None:
        self.times += 1
        assert self.go_on.wait(60)
        self._sync(fd)


async def test_a_slow_disk_keeps_decisions_waiting_and_nothing_else(
    server: Server, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    asked = [asyncio.create_task(screened(server)) for _ in range(20)]

    async def others_wait() -> bool:
        return disk.times == 1 and (await state(server))["waiting"] > 1

    await until(others_wait)
    assert (await server.rest.post("/v1/score", json=TRIPLE)).status_code == 200
    assert not any(task.done() for task in asked)
    disk.go_on.set()
    answers = await asyncio.gather(*asked)
    ids = [entry.get("decision_id") for entry in read_entries(file)]
    assert {answer["decision_id"] for answer in answers} <= {*ids}
    assert disk.times < 20, "decisions that came meanwhile share a write"
    assert verify(files_of(file)).ok


async def test_a_disk_that_has_stopped_ends_in_a_refusal(
    server: Server, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "WAIT_SECONDS", 0.05)
    disk = SlowDisk(monkeypatch)
    check_problem(await server.rest.post("/v1/screen", json=TRIPLE), 503, "audit_failed")
    monkeypatch.setattr(account, "MOST_WAITING", 0)
    check_problem(await server.rest.post("/v1/screen", json=TRIPLE), 503, "audit_failed")
    disk.go_on.set()
    monkeypatch.undo()
    await screened(server)
    assert verify(files_of(file)).ok


async def test_a_full_disk_refuses_decisions_and_overrides_until_there_is_room(
    server: Server, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decision_id = (await screened(server))["decision_id"]
    refused = metric(server, "medreward_audit_refused_total")
    verdicts = 'medreward_verdicts_total{policy="strict",verdict="allow"}'
    before = [line for line in (await server.admin.get("/metrics")).text.splitlines() if line.startswith(verdicts)]
    with room_for(size_of(file)):
        for _ in range(2):
            reply = await server.rest.post("/v1/screen", json=TRIPLE)
            check_problem(reply, 503, "audit_failed")
            assert "verdict" not in reply.text
        reply = await server.rest.post(f"/v1/decisions/{decision_id}/override", json=REASON)
        check_problem(reply, 503, "audit_failed")
        assert (await state(server))["failing"] is True
        assert (await server.rest.post("/v1/score", json=TRIPLE)).status_code == 200
    assert metric(server, "medreward_audit_refused_total") == refused + 3
    assert before == [
        line for line in (await server.admin.get("/metrics")).text.splitlines() if line.startswith(verdicts)
    ]
    failures = [record for record in caplog.records if record.getMessage() == "the audit log cannot be written"]
    assert [vars(record)["reason"] for record in failures] == ["File too large"]
    await screened(server)
    assert (await state(server))["failing"] is False
    assert verify(files_of(file)).ok


async def test_with_count_a_full_disk_is_counted_and_overrides_are_refused_all_the_same(
    policies: Path, tmp_path: Path
) -> None:
    file = tmp_path / "audit.jsonl"
    async with running(policies=policies, audit=file, audit_full="count") as server:
        decision_id = (await screened(server))["decision_id"]
        assert metric(server, "medreward_audit_lost_total") == 0
        with room_for(size_of(file)):
            lost = (await screened(server))["decision_id"]
            reply = await server.rest.post(f"/v1/decisions/{decision_id}/override", json=REASON)
            check_problem(reply, 503, "audit_failed")
        assert metric(server, "medreward_audit_lost_total") == 1
        reply = await server.rest.post(f"/v1/decisions/{lost}/override", json=REASON)
        check_problem(reply, 404, "not_found")
    assert len(read_entries(file)) == 2
    assert verify([file]).ok


async def test_a_clock_that_jumps_does_not_disorder_the_log(
    server: Server, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(f"2026-11-30T{hour:02}:00:00.000000Z" for hour in (12, 13, 11, 12))
    monkeypatch.setattr(account, "now", lambda: next(times))
    ids = [(await screened(server))["decision_id"] for _ in range(4)]
    assert [entry["decision_id"] for entry in read_entries(file)[-4:]] == ids
    assert verify(files_of(file)).ok


async def test_the_state_has_the_hash_to_keep_elsewhere(server: Server, file: Path) -> None:
    await screened(server)
    told, last = await state(server), read_entries(file)[-1]
    assert (told["hash"], told["seq"], told["bytes"]) == (last["hash"], last["seq"], size_of(file))
    assert metric(server, "medreward_audit_seq") == last["seq"]


async def test_a_running_server_erases_and_decides_on(server: Server, file: Path, key: AuditKey) -> None:
    about = {"question": "Is it Mr X?", "response": "Yes, it is Mr X."}
    first = (await screened(server, **about))["decision_id"]
    other = (await screened(server))["decision_id"]
    await server.rest.post(f"/v1/decisions/{first}/override", json=REASON)
    asked = {"sha256": [hashlib.sha256(about["response"].encode()).hexdigest()]}
    reply, *answers = await asyncio.gather(
        server.admin.post("/admin/audit/erase", json=asked), *(screened(server) for _ in range(5))
    )
    assert reply.json() == {"erased": 2}
    entries = read_entries(*files_of(file))
    subjects = {
        entry["decision_id"]: entry["results"][0]["subject"] for entry in entries if entry["event"] == "decision"
    }
    assert subjects[first] is None
    assert all(subjects[answer["decision_id"]] for answer in answers)
    assert (await server.admin.post("/admin/audit/erase", json={"decisions": [other]})).json() == {"erased": 1}
    assert (await server.admin.post("/admin/audit/erase", json=asked)).json() == {"erased": 0}
    assert entry_of(file, other)["results"][0]["subject"] is None
    assert verify(files_of(file), key.secret).ok


@pytest.mark.parametrize("wrong", [{"sha256": ["abc"]}, {"sha256": CANARY}, {"question": CANARY}])
async def test_an_erasure_that_is_wrong_is_refused(server: Server, wrong: dict[str, Any]) -> None:
    reply = await server.admin.post("/admin/audit/erase", json=wrong)
    assert reply.status_code == 422
    assert CANARY not in reply.text


async def test_nothing_of_a_payload_is_in_the_log_the_audit_log_or_the_metrics(
    server: Server, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    image = pictures.jpeg()
    tagged = image[:2] + b"\xff\xfe\x00\x15" + CANARY.encode() + image[2:]
    hidden = {"question": CANARY, "response": f"{CANARY} has no fracture", "department": CANARY}
    for source in (b64encode(tagged).decode(), CANARY, {"sha256": CANARY}, {"url": f"https://x/{CANARY}"}, None):
        answer = await screened(server, **hidden, image=source)
        assert answer["results"][0]["verdict"] == ("allow" if source is None or len(str(source)) > 99 else "unscored")
    await server.rest.post("/v1/screen", json=TRIPLE | {"policy": CANARY})
    await server.rest.post("/v1/screen", json=hidden, headers={"X-Request-Id": f"{CANARY} {CANARY}"})
    await server.rest.post(f"/v1/decisions/{CANARY}/override", json=REASON)
    log = "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records if record.name.startswith("med"))
    everywhere = str(read_entries(file)) + (await server.admin.get("/metrics")).text + str(await state(server)) + log
    for told in (CANARY, hashlib.sha256(CANARY.encode()).hexdigest(), hashlib.sha256(tagged).hexdigest()):
        assert told not in everywhere
