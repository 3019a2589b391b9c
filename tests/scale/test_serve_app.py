"""The service on a real Ray cluster: three replicas behind Ray's own router."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from asking import check_problem
from medreward.clients import AsyncClient, Patience, VersionChanged
from medreward.proto import reward_pb2 as pb
from pictures import png
from scale.conftest import SETTINGS, Ray
from serving import STUB, running
from sisters import sister
from waiting import until

pytestmark = pytest.mark.ray

QUESTION = "Is there a fracture?"
PATIENT = Patience(300)
BUSY = {"X-Affinity-Key": "one replica for all of them"}
ENCODES = "medreward_image_encodes_total"
SCORED = 'medreward_items_total{outcome="ok"}'


@pytest.fixture
async def http(cluster: Ray) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=cluster.url, trust_env=False, timeout=300) as client:
        yield client


@pytest.fixture(scope="module")
async def expected() -> dict[str, float | None]:
    """The reward of each reading of each image, by a server without Ray."""
    async with running() as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        return await rewards(client, range(12))


async def rewards(client: AsyncClient, images: Any, readings: int = 4) -> dict[str, float | None]:
    """Asks for each reading by a call of its own, all at once."""
    asked = [(n, reading) for n in images for reading in range(readings)]
    calls = [client.score(png(500 + n), QUESTION, [f"Reading {reading}."]) for n, reading in asked]
    answers = await asyncio.gather(*calls)
    return {f"{n}/{reading}": answer[0].reward for (n, reading), answer in zip(asked, answers, strict=True)}


async def test_answers_to_an_image_reach_one_replica(cluster: Ray, expected: dict[str, float | None]) -> None:
    encodes, scored = cluster.counts(ENCODES), cluster.counts(SCORED)
    # No more under way than one replica takes, so that none is full.
    async with AsyncClient(cluster.url, affinity=True, patience=PATIENT, concurrency=4) as client:
        assert await rewards(client, range(12)) == expected
    encoded = [after - before for before, after in zip(encodes, cluster.counts(ENCODES), strict=True)]
    answered = [after - before for before, after in zip(scored, cluster.counts(SCORED), strict=True)]
    assert sum(encoded) == 12
    assert sum(answered) == 48
    assert answered == [4 * images for images in encoded]  # each image with all of its readings
    assert max(encoded) < 12


async def test_a_full_replica_sends_on_to_the_next(cluster: Ray, http: httpx.AsyncClient) -> None:
    before = cluster.counts(SCORED)
    body = {"image": b64encode(png(600)).decode(), "question": QUESTION}
    calls = [http.post("/score", json={**body, "response": f"Reading {n}."}, headers=BUSY) for n in range(40)]
    replies = await asyncio.gather(*calls)
    assert {reply.status_code for reply in replies} <= {200, 503}
    answered = [after - before for before, after in zip(before, cluster.counts(SCORED), strict=True)]
    assert sum(count > 0 for count in answered) > 1


async def test_what_the_service_says_comes_through_the_proxy(cluster: Ray, http: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"image": None, "question": QUESTION, "response": "No."}
    reply = await http.post("/score", json=body, headers={"X-Request-Id": "mine", "X-Lane": "interactive"})
    assert reply.status_code == 200
    assert reply.headers.get_list("x-request-id") == ["mine"]
    assert reply.json()["id"] == "mine"
    lanes = cluster.counts('medreward_requests_total{code="200",lane="interactive",route="/score"}')
    assert sum(lanes) == 1
    # a batch takes 30 ms, so that no answer may be there in time
    late = await http.post("/score", json={**body, "response": "Later."}, headers={"X-Deadline-Ms": "1"})
    check_problem(late, 504, "deadline")
    check_problem(await http.post("/score", json={**body, "response": 1}), 422, "invalid_field", "/response")
    assert (await http.get("/readyz")).json() == {"status": "ready"}
    assert (await http.get("/docs")).status_code == 200


async def test_a_refusal_says_when_to_come_again(cluster: Ray, http: httpx.AsyncClient) -> None:
    admins = [f"http://{member['metrics']}" for member in cluster.call("members")]
    async with httpx.AsyncClient(trust_env=False, timeout=300) as operator:
        for admin in admins:
            await operator.post(f"{admin}/admin/drain")
        try:
            reply = await http.post("/score", json={"image": None, "question": QUESTION, "response": "No."})
        finally:
            for admin in admins:
                await operator.post(f"{admin}/admin/undrain")
    check_problem(reply, 503, "not_ready")
    assert reply.headers["retry-after"] == "1"


async def test_a_client_that_leaves_stops_its_work(cluster: Ray, http: httpx.AsyncClient) -> None:
    left, under_way = 'medreward_requests_total{code="499"', "medreward_requests_in_flight"
    before = sum(cluster.counts(left))
    item = {"image": None, "question": QUESTION, "responses": [f"Reading {n} of many." for n in range(250)]}
    asking = asyncio.create_task(http.post("/score", json={"items": [item]}))
    await until(lambda: sum(cluster.counts(under_way)) > 0)
    asking.cancel()
    await until(lambda: sum(cluster.counts(left)) > before)


async def test_the_grpc_ingress_gives_the_same_numbers_and_errors(cluster: Ray, http: httpx.AsyncClient) -> None:
    item = pb.Item(question=QUESTION, responses=["Yes.", "No."])
    body = {"items": [{"image": None, "question": QUESTION, "responses": ["Yes.", "No."]}]}
    over_rest = (await http.post("/score", json=body)).json()["results"]
    async with grpc.aio.insecure_channel(cluster.grpc_target) as channel:
        stub = STUB(channel)
        answer = await stub.Score(pb.ScoreRequest(items=[item], request_id="mine"), timeout=300)
        assert answer.request_id == "mine"
        assert [result.reward for result in answer.results] == [result["reward"] for result in over_rest]
        streamed = [reply async for reply in stub.ScoreStream(iter([pb.ScoreRequest(items=[item])]), timeout=300)]
        assert [result.reward for result in streamed[0].results] == [result.reward for result in answer.results]
        assert (await stub.GetModel(pb.GetModelRequest(), timeout=300)).ref.name == "fake"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Score(pb.ScoreRequest(items=[pb.Item(question=QUESTION)]), timeout=300)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        trailing = dict(refused.value.trailing_metadata() or ())
        assert trailing["x-error-code"] == "invalid_field"
        new = pb.ScoreRequest(items=[pb.Item(question=QUESTION, responses=["Later still."])])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Score(new, metadata=[("x-deadline-ms", "1")], timeout=300)
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_killed_replica_costs_no_answer(cluster: Ray, expected: dict[str, float | None]) -> None:
    async with AsyncClient(cluster.url, affinity=True, patience=PATIENT, concurrency=8) as client:
        asking = asyncio.create_task(rewards(client, range(12)))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(cluster.call, "kill", cluster.call("members")[0]["replica"])
        assert await asking == expected
    await asyncio.to_thread(cluster.call, "until", 3)


async def test_an_update_pins_a_run_and_scaling_in_drains(
    cluster: Ray, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The model is taken over in place, and two of three replicas end, while a client goes on asking."""
    statuses: list[int] = []
    changed = asyncio.Event()

    async def ask_on() -> None:
        n = 0
        while not changed.is_set():
            n += 1
            body = {"image": None, "question": QUESTION, "response": f"Reading {n}."}
            statuses.append((await http.post("/score", json=body)).status_code)

    async with AsyncClient(cluster.url, patience=PATIENT) as pinned:
        await pinned.score(None, QUESTION, ["Before."])
        askers = [asyncio.create_task(ask_on()) for _ in range(2)]
        update = {**SETTINGS, "model": str(sister(tmp_path / "next", 2.0))}
        await asyncio.to_thread(cluster.call, "deploy", update, num_replicas=1, max_ongoing_requests=8)
        await asyncio.to_thread(cluster.call, "until", 1)
        changed.set()
        await asyncio.gather(*askers)
        assert set(statuses) == {200}
        with pytest.raises(VersionChanged):
            await pinned.score(None, QUESTION, ["After."])
