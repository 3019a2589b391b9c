"""ROLL's pair: a sample is submitted, and its reward is asked for until it is there."""

import asyncio
from typing import Any

import pytest

from api.compat.shapes import rm, roll, submit
from asking import check_problem
from cases import ANSWER, QUESTION, UNKNOWN_HASH
from medreward.api.compat.roll import Jobs
from medreward.types import DIMENSIONS
from serving import Server, running
from waiting import until


async def test_the_result_has_the_reward_and_each_dimension(fake: Server) -> None:
    result = (await roll(fake, submit(QUESTION, ANSWER))).json()
    by_slime = (await fake.rest.post("/rm", json=rm(QUESTION, ANSWER))).json()
    assert (result["errcode"], result["reward_score"]) == (0, by_slime["reward"])
    assert {name: one["logit"] for name, one in result["dimention_reward_score"].items()} == {
        dimension: by_slime[dimension] for dimension in DIMENSIONS
    }


async def test_a_prompt_whose_markup_was_taken_out_is_raw(fake: Server) -> None:
    """ROLL decodes without special tokens."""
    body = submit(QUESTION, ANSWER) | {"prompt": f"user\n{QUESTION}\nassistant\n"}
    flag = 'medreward_flags_total{flag="raw_text"} '
    before, _, after = [await raw_texts(fake, flag), await roll(fake, body), await raw_texts(fake, flag)]
    assert float(after) == float(before) + 1


async def raw_texts(server: Server, series: str) -> str:
    (line,) = (line for line in (await server.admin.get("/metrics")).text.splitlines() if line.startswith(series))
    return line.split()[-1]


async def test_the_same_sample_again_is_the_same_request(slow: Server) -> None:
    await until(lambda: slow.engine.state()["triples_in_flight"] == 0)  # of other tests
    body = submit(QUESTION, "submitted twice")
    one, two = [(await slow.rest.post("/roll/submit", json=body)).json() for _ in range(2)]
    assert one == two == {"errcode": 0, "reward_request_id": one["reward_request_id"]}
    asked = {"reward_request_id": one["reward_request_id"]}
    assert (await slow.rest.request("GET", "/roll/result", json=asked)).json()["errcode"] == 1
    assert slow.engine.state()["triples_in_flight"] in (0, 1)
    weighted = (await slow.rest.post("/roll/submit?weights=accuracy:1", json=body)).json()
    assert weighted != one
    results = [(await roll(slow, body)).json() for _ in range(2)]  # as often as it is asked
    assert results[0] == results[1]
    await roll(slow, body, "/roll/submit?weights=accuracy:1")


async def test_a_sample_that_failed_is_told_and_tried_again_when_it_is_submitted_again(fake: Server) -> None:
    body = submit(QUESTION, ANSWER, UNKNOWN_HASH)
    check_problem(await roll(fake, body), 422, "image_unknown", "/response")
    check_problem(await roll(fake, body), 422, "image_unknown", "/response")
    filled = (await roll(fake, body, "/roll/submit?on_error=-2")).json()
    assert (filled["errcode"], filled["reward_score"]) == (0, -2)


async def test_a_request_that_nobody_submitted(fake: Server) -> None:
    asked = {"reward_request_id": "0" * 32}
    refused = await fake.rest.request("GET", "/roll/result", json=asked)
    check_problem(refused, 404, "not_found", "/reward_request_id")


async def test_a_result_is_forgotten_after_its_timeout(fake: Server) -> None:
    body = submit(QUESTION, "soon forgotten") | {"timeout": 0.3}
    id_ = (await fake.rest.post("/roll/submit", json=body)).json()
    asked = {"reward_request_id": id_["reward_request_id"]}
    await asyncio.sleep(0.31)
    assert (await fake.rest.request("GET", "/roll/result", json=asked)).status_code == 404


async def test_a_tenant_has_no_more_samples_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medreward.api.compat.roll.JOBS", 2)
    async with running() as server:
        bodies = [submit(QUESTION, f"{n}") for n in range(3)]
        replies = [await server.rest.post("/roll/submit", json=body) for body in bodies]
        assert [reply.status_code for reply in replies] == [200, 200, 503]
        assert replies[2].json()["code"] == "overloaded"
        assert (await server.rest.post("/roll/submit", json=bodies[0])).status_code == 200  # it is known
        await asyncio.gather(*(roll(server, body) for body in bodies[:2]))


async def test_work_whose_time_is_over_ends() -> None:
    async def work() -> Any:
        await asyncio.sleep(60)

    jobs = Jobs()
    jobs.start("a", "id", -1, work())
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "roll")
    assert jobs.find("a", "id") is None
    with pytest.raises(asyncio.CancelledError):
        await task
