"""What only the gRPC door has: streams, health, reflection, message sizes, metadata."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import pictures
from asking import Refusal, refused
from cases import ANSWER, QUESTION, item, to_message
from medreward.api.observing import OUR_FAULT
from medreward.proto import reward_pb2 as pb
from medreward.types import DIMENSIONS
from serving import BODY_BYTES, IMAGE_BYTES, Server, running
from waiting import until

SERVICE = "medreward.v1.RewardService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def request(id_: str, question: str = QUESTION, *responses: str) -> pb.ScoreRequest:
    return pb.ScoreRequest(request_id=id_, items=[pb.Item(question=question, responses=responses or [ANSWER])])


async def several(requests: Iterable[pb.ScoreRequest]) -> AsyncIterator[pb.ScoreRequest]:
    for one in requests:
        yield one


# streams


async def test_a_stream_answers_each_request_with_the_numbers_it_gets_alone(tiny: Server) -> None:
    requests = {f"r{n}": request(f"r{n}", QUESTION, f"answer {n}", "no") for n in range(150)}
    replies = [reply async for reply in tiny.stub.ScoreStream(several(requests.values()))]
    assert sorted(reply.request_id for reply in replies) == sorted(requests)
    for reply in replies[::30]:
        alone = await tiny.stub.Score(requests[reply.request_id])
        assert all(result.cached for result in alone.results)
        for result in (*alone.results, *reply.results):
            result.cached = False
        assert list(alone.results) == list(reply.results)


async def test_a_refused_request_neither_ends_the_stream_nor_waits_for_the_others(slow: Server) -> None:
    wrong_weight = request("wrong", QUESTION, "a", "b")
    wrong_weight.weights["beauty"] = 1
    requests = [request("good"), wrong_weight, pb.ScoreRequest(request_id="none"), request("bad item", " ")]
    replies = {r.request_id: r async for r in slow.stub.ScoreStream(several(requests))}
    assert list(replies)[-1] == "good"
    assert not replies["good"].results[0].HasField("error")
    errors = {id_: [(r.error.code, r.error.field) for r in reply.results] for id_, reply in replies.items()}
    assert errors["wrong"] == [("invalid_field", "/weights")] * 2
    assert errors["none"] == [("invalid_field", "/items")]
    assert errors["bad item"] == [("empty_question", "/items/0/question")]


async def test_an_answer_comes_while_the_client_keeps_the_stream_open(fake: Server) -> None:
    call = fake.stub.ScoreStream()
    for id_ in ("first", "second"):
        await call.write(request(id_))
        reply = await asyncio.wait_for(call.read(), 60)
        assert reply.request_id == id_
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_a_message_that_is_none_ends_the_stream_after_what_was_accepted(fake: Server) -> None:
    answered: list[str] = []

    async def raw() -> AsyncIterator[bytes]:
        yield request("good").SerializeToString()
        yield b"\xff\xff\xff"

    async def read() -> None:
        stream: Any = fake.channel.stream_stream("/medreward.v1.RewardService/ScoreStream")
        replies = stream(raw())
        while (reply := await replies.read()) is not grpc.aio.EOF:
            answered.append(pb.ScoreResponse.FromString(reply).request_id)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await read()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert answered == ["good"]


async def test_a_client_that_leaves_a_stream_leaves_no_work_behind(slow: Server) -> None:
    call = slow.stub.ScoreStream()
    for n in range(5):
        await call.write(request(f"r{n}"))
    await until(lambda: slow.engine.state()["requests_in_flight"] == 5)
    call.cancel()
    await until(lambda: slow.engine.state()["requests_in_flight"] == 0)
    await until(lambda: slow.engine.state()["cost_admitted"] == 0)
    assert (await slow.stub.Score(request("after"))).results[0].HasField("scores")


async def test_requests_of_a_stream_that_have_no_id_share_the_streams(fake: Server) -> None:
    requests = [request("Zoë 1"), request(""), pb.ScoreRequest()]
    call = fake.stub.ScoreStream(several(requests), metadata=(("x-request-id", "mine"),))
    assert sorted([reply.request_id async for reply in call]) == ["Zoë 1", "mine", "mine"]


async def test_a_deadline_of_the_client_frees_the_work(slow: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await slow.stub.Score(request("late"), timeout=0.05)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: slow.engine.state()["requests_in_flight"] == 0)


# the other calls


async def test_get_model(tiny: Server) -> None:
    model = await tiny.stub.GetModel(pb.GetModelRequest())
    page = (await tiny.rest.get("/v1/model")).json()
    assert (model.ref.name, model.ref.fingerprint, model.ref.runtime) == ("tiny", page["fingerprint"], "onnx/cpu/fp32")
    assert list(model.dimensions) == list(DIMENSIONS)
    assert dict(model.default_weights) == page["default_weights"]
    assert dict(model.limits) == (await tiny.rest.get("/v1/limits")).json()


async def test_put_image_refuses_what_it_could_not_score(fake: Server) -> None:
    for file, code in ((b"hello", "image_kind"), (b"", "image_invalid"), (pictures.animated("PNG"), "image_animated")):
        answer = await refused(fake.stub.PutImage(pb.PutImageRequest(data=file)))
        assert answer == Refusal(grpc.StatusCode.INVALID_ARGUMENT, code, "")


async def test_fields_of_the_request_say_what_metadata_say(tiny: Server) -> None:
    reply = await tiny.stub.Score(request("mine"), metadata=(("x-request-id", "not this"),))
    assert reply.request_id == "mine"
    reply = await tiny.stub.Score(request(""), metadata=(("x-request-id", "from-metadata"),))
    assert reply.request_id == "from-metadata"
    other = request("")
    other.expect_fingerprint = "sha256:0"
    wanted = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "version_changed", "")
    assert await refused(tiny.stub.Score(other)) == wanted
    wrong = request("")
    wrong.lane = "fast"
    wanted = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "invalid_field", "X-Lane")
    assert await refused(tiny.stub.Score(wrong)) == wanted


async def test_a_refusal_names_its_request(fake: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await fake.stub.Score(pb.ScoreRequest(request_id="mine"))
    assert dict(raised.value.trailing_metadata() or ())["x-request-id"] == "mine"


async def test_an_image_of_no_kind_at_all_is_an_empty_one(fake: Server) -> None:
    message = pb.ScoreRequest(items=[pb.Item(question="q", responses=["r"], images=[pb.Image()])])
    assert (await fake.stub.Score(message)).results[0].error.code == "image_invalid"


async def test_messages_may_be_as_large_as_a_body(fake: Server) -> None:
    message = to_message({"items": [item(response="a"), item(image="", response="b")]})
    message.items[1].images[0].data = b"\0" * (BODY_BYTES - 1000)
    results = (await fake.stub.Score(message)).results
    assert (results[0].error.code, results[1].error.code) == ("", "image_too_large")
    assert IMAGE_BYTES < 4 * 1024 * 1024 < BODY_BYTES
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await fake.stub.PutImage(pb.PutImageRequest(data=b"\0" * (BODY_BYTES + 100_000)))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_fault_of_ours_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: object) -> None:
        raise ValueError("a secret")

    async with running() as server:
        monkeypatch.setattr(server.engine, "score", broken)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await server.stub.Score(request("r"))
        replies = [reply async for reply in server.stub.ScoreStream(several([request("r")]))]
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.INTERNAL, OUR_FAULT.detail)
    assert [(r.error.code, r.error.message) for r in replies[0].results] == [("internal", OUR_FAULT.detail)]


# health and reflection


async def health(server: Server) -> set[int]:
    stub: Any = health_pb2_grpc.HealthStub(server.channel)
    names = ("", SERVICE)
    return {(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in names}


async def has_health(server: Server, status: int) -> bool:
    return await health(server) == {status}


async def test_health_follows_readiness() -> None:
    async with running(start=False) as server:
        assert await health(server) == {NOT_SERVING}
        wanted = Refusal(grpc.StatusCode.UNAVAILABLE, "not_ready", "")
        assert await refused(server.stub.Score(request("early"))) == wanted
        assert await refused(server.stub.GetModel(pb.GetModelRequest())) == wanted
        await server.engine.start()
        await until(lambda: has_health(server, SERVING))
        server.engine.drain()
        await until(lambda: has_health(server, NOT_SERVING))
        assert await refused(server.stub.Score(request("late"))) == wanted


async def test_health_of_a_service_that_is_not_there(fake: Server) -> None:
    stub: Any = health_pb2_grpc.HealthStub(fake.channel)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_service(fake: Server) -> None:
    async def asked() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)

    stub_type: Any = reflection_pb2_grpc.ServerReflectionStub
    stub = stub_type(fake.channel)
    listed, described = [reply async for reply in stub.ServerReflectionInfo(asked())]
    names = {service.name for service in listed.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names
    assert b"ScoreStream" in described.file_descriptor_response.file_descriptor_proto[0]
