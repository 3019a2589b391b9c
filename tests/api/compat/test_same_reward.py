"""One triple gets one reward, to the last bit, whichever way it came; and the server finds the group."""

import asyncio
import threading
from base64 import b64encode
from types import SimpleNamespace
from typing import Any

import pytest

import medreward.backends.fake
import pictures
from api.compat.shapes import ROUTES, WITH_IMAGE, infer_message, inference, reward, roll, submit
from cases import ANSWER, QUESTION, to_message
from medreward.proto import reward_pb2 as pb
from serving import Server, running
from waiting import until

FILE = pictures.jpeg()
WEIGHTS = {"accuracy": 2.0, "overall": -0.5}
WRITTEN = "accuracy:2,overall:-0.5"


async def expected(server: Server, image: bytes | None, **beside: Any) -> float:
    body = {"image": b64encode(image).decode() if image else None, "question": QUESTION, "response": ANSWER, **beside}
    number: float = (await server.rest.post("/score", json=body)).json()["results"][0]["reward"]
    by_grpc: pb.ScoreResponse = await server.stub.Score(to_message(body))
    assert by_grpc.results[0].reward == number
    return number


@pytest.mark.parametrize("name", ROUTES)
async def test_a_triple_without_an_image(fake: Server, name: str) -> None:
    assert await reward(fake, name, QUESTION, ANSWER) == await expected(fake, None)
    weighted = await expected(fake, None, weights=WEIGHTS)
    assert await reward(fake, name, QUESTION, ANSWER, weights=WRITTEN) == weighted


@pytest.mark.parametrize("name", WITH_IMAGE)
async def test_a_triple_with_an_image(fake: Server, name: str) -> None:
    number = await expected(fake, FILE)
    stored = (await fake.rest.put("/v1/images", content=FILE)).json()["sha256"]
    data_url = "data:image/jpeg;base64," + b64encode(FILE).decode()
    for image in (stored, stored.upper(), data_url):
        assert await reward(fake, name, QUESTION, ANSWER, image) == number


async def test_through_rolls_pair(fake: Server) -> None:
    stored = (await fake.rest.put("/v1/images", content=FILE)).json()["sha256"]
    for image, file in ((None, None), (stored, FILE)):
        result = (await roll(fake, submit(QUESTION, ANSWER, image))).json()
        assert result["reward_score"] == await expected(fake, file)


async def test_through_the_open_inference_protocol_over_grpc(fake: Server) -> None:
    model = fake.engine.serving.ref.name
    for image in (b"", FILE):
        message = infer_message(model, [image], [QUESTION], [ANSWER])
        reply = await inference(fake).ModelInfer(message)
        assert list(reply.outputs[2].contents.fp64_contents) == [await expected(fake, image or None)]
        message.parameters["weights"].string_param = WRITTEN
        reply = await inference(fake).ModelInfer(message)
        assert list(reply.outputs[2].contents.fp64_contents) == [await expected(fake, image or None, weights=WEIGHTS)]


async def counts(server: Server) -> dict[str, float]:
    lines = (await server.admin.get("/metrics")).text.splitlines()
    names = "medreward_image_encodes_total", "medreward_prefix_runs_total", "medreward_batch_items_count"
    return {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith(names)}


async def test_separate_calls_about_one_image_cost_one_encode_and_one_prefix() -> None:
    async with running() as server:
        stored = (await server.rest.put("/v1/images", content=FILE)).json()["sha256"]
        for name in WITH_IMAGE:
            calls = [reward(server, name, QUESTION, f"{name}, answer {n}.", stored) for n in range(8)]
            assert len(set(await asyncio.gather(*calls))) == 8
        counted = await counts(server)
    assert (counted["medreward_image_encodes_total"], counted["medreward_prefix_runs_total"]) == (1, 1)


async def test_separate_calls_that_wait_together_run_together(slow: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    all_wait = threading.Event()
    monkeypatch.setattr(medreward.backends.fake, "time", SimpleNamespace(sleep=lambda _: all_wait.wait(300)))
    new = pictures.jpeg(4711)  # no other test of this server has asked about it
    stored = (await slow.rest.put("/v1/images", content=new)).json()["sha256"]
    await until(lambda: slow.engine.state()["triples_in_flight"] == 0)  # of other tests
    before = await counts(slow)
    first = asyncio.create_task(reward(slow, "slime", "Another question?", ANSWER))
    await until(lambda: slow.engine.state()["triples_in_flight"] == 1 and not slow.engine.state()["triples_waiting"])
    group = [asyncio.create_task(reward(slow, "OpenRLHF", QUESTION, f"Answer {n}.", stored)) for n in range(8)]
    await until(lambda: slow.engine.state()["triples_waiting"] == 8)
    all_wait.set()
    await asyncio.gather(first, *group)
    after = await counts(slow)
    assert {name: after[name] - before[name] for name in after} == {
        "medreward_image_encodes_total": 1,
        "medreward_prefix_runs_total": 2,
        "medreward_batch_items_count": 2,
    }
