"""A model takes the place of another, falls asleep and wakes, and no answer is lost or mixed over it."""

import asyncio
import json
import math
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asking import check_problem
from cases import SCAN
from keyring import KeysFile, bearer
from medreward.api.access.keys import Scope
from medreward.api.admin import ModelsReply
from medreward.artifacts.manifest import read_manifest
from medreward.artifacts.repository import bundled_models
from medreward.backends.fake import FakeBackend
from medreward.engine import models as models_module
from policies import policy_text, publish, threshold
from serving import Server, running
from sisters import sister
from waiting import until

MODEL = "/admin/model"
ITEM = {"image": SCAN, "question": "Is there a fracture?"}
BODY = {"image": SCAN, "question": "Is there a fracture?", "response": "Yes, of the left sixth rib."}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two models with the same logits and other scores."""
    folder = tmp_path_factory.mktemp("models")
    return str(sister(folder / "one", 1.0)), str(sister(folder / "two", 2.0))


@pytest.fixture
async def server(folders: tuple[str, str]) -> AsyncIterator[Server]:
    async with running(model=folders[0]) as server:
        yield server


async def swap(server: Server, model: str, **more: Any) -> ModelsReply:
    reply = await server.admin.post(MODEL, json={"model": model, **more})
    assert reply.status_code == 200, reply.text
    return ModelsReply.model_validate_json(reply.content)


async def answer(server: Server, pinned: str | None = None, **body: Any) -> dict[str, Any]:
    headers = {"X-Model-Fingerprint": pinned} if pinned else {}
    reply = await server.rest.post("/score", json={**BODY, **body}, headers=headers)
    assert reply.status_code == 200, reply.text
    answered: dict[str, Any] = reply.json()
    return answered


def fingerprint(server: Server) -> str:
    return server.engine.serving.ref.fingerprint


@pytest.mark.slow
async def test_swaps_under_load_lose_nothing_and_each_answer_is_that_of_the_model_it_names(
    server: Server, folders: tuple[str, str]
) -> None:
    scores: dict[str, set[float]] = {}
    stop, answered = asyncio.Event(), 0

    async def ask() -> None:
        nonlocal answered
        while not stop.is_set():  # of a few texts: each model has its own answer to each, kept or not
            reply = await answer(server, response=f"Yes, rib {random.randrange(12)}.", image=None)
            result = reply["results"][0]
            median = _median(result["logits"]["accuracy"], result["scores"]["accuracy"])
            scores.setdefault(reply["model"]["fingerprint"], set()).add(median)
            answered += 1

    asking = [asyncio.create_task(ask()) for _ in range(200)]
    for n in range(20):
        before = answered
        state = await swap(server, folders[(n + 1) % 2])
        assert state.previous is not None

        async def has_more(before: int = before) -> bool:
            return answered > before + 20

        await until(has_more)
    stop.set()
    await asyncio.gather(*asking)
    assert len(scores) == 2
    assert {round(median, 6) for medians in scores.values() for median in medians} == {1.0, 2.0}
    assert all(len({round(median, 6) for median in medians}) == 1 for medians in scores.values())
    assert (
        server.engine.metrics.registry.get_sample_value("medreward_model_swaps_total", {"outcome": "taken_over"}) == 20
    )


def _median(logit: float, score: float) -> float:
    """Returns the median that makes this score of this logit."""
    return logit - SCALE * math.log(score / (1 - score))


SCALE = read_manifest(bundled_models() / "medreward-mini" / "model.toml").calibration["accuracy"].scale


async def test_refused_model_leaves_the_old_one_with_the_reason(server: Server, tmp_path: Path) -> None:
    before = fingerprint(server)
    bad = sister(tmp_path / "bad", 3.0)
    golden = json.loads((bad / "golden.json").read_text())
    (bad / "golden.json").unlink()
    (bad / "golden.json").write_text(json.dumps(golden[:1]))
    for model in (str(bad), str(tmp_path / "nowhere")):
        reply = await server.admin.post(MODEL, json={"model": model})
        check_problem(reply, 409, "model_refused")
        assert "the old model serves" in reply.json()["detail"]
    evidence = await server.admin.post(
        MODEL, json={"model": str(sister(tmp_path / "new", 4.0)), "require_evidence": "default"}
    )
    check_problem(evidence, 409, "model_refused")
    assert fingerprint(server) == before
    assert (await answer(server))["model"]["fingerprint"] == before
    state = ModelsReply.model_validate_json((await server.admin.get(MODEL)).content)
    assert state.state == "serving"
    assert "evidence" in (state.last_problem or "")


async def test_rollback_is_at_once_while_the_model_before_is_loaded_and_loads_it_later(
    folders: tuple[str, str],
) -> None:
    async with running(model=folders[0], swap_keep_seconds=0.2) as server:
        one = fingerprint(server)
        check_problem(await server.admin.post(f"{MODEL}/rollback"), 409, "model_refused")
        state = await swap(server, folders[1])
        assert state.previous is not None
        assert state.previous.fingerprint == one
        assert (await server.admin.post(f"{MODEL}/rollback")).status_code == 200
        assert fingerprint(server) == one
        await swap(server, folders[1])

        async def let_go() -> bool:
            return server.engine.models.previous is None

        await until(let_go)
        assert (await server.admin.post(f"{MODEL}/rollback")).status_code == 200
        assert (await answer(server))["model"]["fingerprint"] == one


@pytest.mark.parametrize(("grace", "status"), [(0, 409), (60, 200)])
async def test_pinned_request_gets_the_old_model_within_the_grace_and_else_a_conflict(
    folders: tuple[str, str], grace: float, status: int
) -> None:
    async with running(model=folders[0], swap_grace_seconds=grace) as server:
        one = fingerprint(server)
        await swap(server, folders[1])
        reply = await server.rest.post("/score", json=BODY, headers={"X-Model-Fingerprint": one})
        assert reply.status_code == status
        if status == 200:
            assert reply.json()["model"]["fingerprint"] == one
        assert (await answer(server, pinned=fingerprint(server)))["model"]["fingerprint"] != one


async def test_share_of_a_candidate_is_kept_image_by_image_until_it_takes_over(
    server: Server, folders: tuple[str, str]
) -> None:
    one = fingerprint(server)
    state = await swap(server, folders[1], share=0.5)
    assert (state.state, state.share) == ("canary", 0.5)
    assert state.candidate is not None
    two = state.candidate.fingerprint
    seen = []
    for n in range(24):
        asked = [
            (await answer(server, image=None, question=f"Question {n}?", response=text))["model"]["fingerprint"]
            for text in ("yes", "no")
        ]
        assert len({*asked}) == 1
        seen.append(asked[0])
    assert {*seen} == {one, two}
    assert (await answer(server, pinned=one))["model"]["fingerprint"] == one
    assert (await answer(server, pinned=two))["model"]["fingerprint"] == two
    assert (await swap(server, folders[1])).candidate is None
    assert fingerprint(server) == two


async def test_models_that_do_not_fit_in_memory_together_need_the_plan_drain(
    server: Server, folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_module, "free_bytes", lambda: 1 << 20)
    reply = await server.admin.post(MODEL, json={"model": folders[1]})
    check_problem(reply, 409, "model_refused")
    assert "ask for the plan drain" in reply.json()["detail"]
    state = await swap(server, folders[1], plan="drain")
    assert state.previous is None
    assert (await answer(server))["model"]["fingerprint"] == fingerprint(server)
    assert (await server.admin.post(f"{MODEL}/rollback")).status_code == 200
    check_problem(await server.admin.post(MODEL, json={"model": "nowhere", "plan": "drain"}), 409, "model_refused")
    assert (await answer(server))["model"]["fingerprint"] == fingerprint(server)


async def test_swap_needs_policies_for_the_new_model(folders: tuple[str, str], tmp_path: Path) -> None:
    async with running(model=folders[0]) as server:
        one = fingerprint(server)
        await swap(server, folders[1])
        two = fingerprint(server)
    publish(tmp_path, policy_text(threshold("a", "allow", -99.0), fingerprint=one))
    async with running(model=folders[0], policies=tmp_path) as server:
        reply = await server.admin.post(MODEL, json={"model": folders[1]})
        check_problem(reply, 409, "model_refused")
        assert "thresholds do not carry over" in reply.json()["detail"]
        publish(tmp_path, policy_text(threshold("a", "block", -99.0), fingerprint=two, version="2"), version="2")
        await swap(server, folders[1])
        screened = (await server.rest.post("/v1/screen", json=BODY)).json()
        assert (screened["results"][0]["verdict"], screened["model"]["fingerprint"]) == ("block", two)


@pytest.mark.parametrize("isolation", ["inline", "process"])
@pytest.mark.parametrize("level", [1, 2])
async def test_sleeping_server_refuses_and_scores_the_same_bits_when_it_wakes(
    folders: tuple[str, str], level: int, isolation: str
) -> None:
    async with running(model=folders[0], isolation=isolation, score_cache_bytes=0) as server:
        before = (await answer(server))["results"][0]["logits"]
        state = (await server.admin.post("/admin/sleep", json={"level": level})).json()
        assert (state["state"], state["asleep"]) == ("asleep", level)
        refused = await server.rest.post("/score", json=BODY)
        check_problem(refused, 503, "asleep")
        assert refused.headers["retry-after"]
        assert (await server.rest.get("/readyz")).json()["detail"] == "asleep"
        if isolation == "process":
            pids = [worker["pid"] for worker in server.engine.state()["workers"]]  # type: ignore[attr-defined]
            assert (pids == [None]) == (level == 2)
        assert (await server.admin.post("/admin/wake")).json()["state"] == "serving"
        assert (await answer(server))["results"][0]["logits"] == before


async def test_server_that_wakes_on_demand_answers_all_who_ask_meanwhile(folders: tuple[str, str]) -> None:
    async with running(model=folders[0], wake_on_demand=True) as server:
        await server.admin.post("/admin/sleep", json={"level": 2})
        replies = await asyncio.gather(*(answer(server, response=f"Rib {n}.") for n in range(5)))
        assert len(replies) == 5
        assert server.engine.models.asleep is None


async def test_sleeping_server_does_not_change_its_model(server: Server, folders: tuple[str, str]) -> None:
    await server.admin.post("/admin/sleep", json={})
    check_problem(await server.admin.post(MODEL, json={"model": folders[1]}), 503, "asleep")
    await server.admin.post("/admin/wake")


async def test_changes_need_the_admin_scope(tmp_path: Path) -> None:
    keys = KeysFile(tmp_path / "keys.jsonl")
    scoring, admin = keys.new(), keys.new(scopes=[Scope.ADMIN])
    async with running(keys_file=keys.path) as server:
        for path in (MODEL, f"{MODEL}/rollback", "/admin/sleep", "/admin/wake"):
            reply = await server.admin.post(path, json={}, headers=bearer(scoring))
            check_problem(reply, 403, "forbidden")
        assert (await server.admin.post("/admin/wake", headers=bearer(admin))).status_code == 200


async def test_server_that_cannot_take_its_device_back_sleeps_on_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as server:
        await server.admin.post("/admin/sleep", json={"level": 1})
        with monkeypatch.context() as taken:
            taken.setattr(FakeBackend, "resume", _no_memory)
            reply = await server.admin.post("/admin/wake")
            check_problem(reply, 503, "not_ready")
            assert "the device has no memory" in reply.json()["detail"]
            check_problem(await server.rest.post("/score", json=BODY), 503, "asleep")
        assert (await server.admin.post("/admin/wake")).json()["state"] == "serving"
        assert (await server.rest.post("/score", json=BODY)).status_code == 200


def _no_memory(_: FakeBackend) -> None:
    raise MemoryError


async def test_worker_that_is_killed_asleep_is_started_when_the_server_wakes() -> None:
    async with running(isolation="process") as server:
        await server.admin.post("/admin/sleep", json={"level": 1})
        (worker,) = server.engine.serving.workers
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)

        async def is_noticed() -> bool:
            lost = server.engine.metrics.registry.get_sample_value(
                "medreward_worker_restarts_total", {"reason": "crash"}
            )
            return lost == 1

        await until(is_noticed)
        check_problem(await server.rest.post("/score", json=BODY), 503, "asleep")
        assert (await server.admin.post("/admin/wake")).status_code == 200
        assert (await server.rest.post("/score", json=BODY)).status_code == 200


async def test_trainer_that_shares_the_device_scores_sleeps_trains_and_wakes(folders: tuple[str, str]) -> None:
    """The loop of docs/swap.md: what is scored is the same in every round."""
    async with running(model=folders[0], score_cache_bytes=0) as server:
        seen = set()
        for level in (1, 2, 1):
            assert (await server.admin.post("/admin/wake")).status_code == 200
            group = await server.rest.post("/score", json={"items": [{**ITEM, "responses": ["Yes.", "No."]}]})
            seen.add(str([result["logits"] for result in group.json()["results"]]))
            assert (await server.admin.post("/admin/sleep", json={"level": level})).status_code == 200
            assert server.engine.serving.workers[0].is_ready() is False  # the device is the trainer's
        assert len(seen) == 1
