"""The Open Inference Protocol as its clients speak it: JSON, bytes behind JSON, and gRPC."""

import json
import math
import struct
from base64 import b64encode
from typing import Any

import grpc
import httpx
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import pictures
from api.compat.shapes import binary, infer, infer_message, inference, tensor
from asking import Refusal, refused
from cases import ANSWER, QUESTION, UNKNOWN_HASH, Body
from medreward import __version__
from medreward.proto import inference_pb2 as pb
from medreward.types import DIMENSIONS
from serving import Server, running

FILE = pictures.png(6)
PATH = "/v2/models/fake/infer"
LENGTH = "Inference-Header-Content-Length"
QUESTIONS, ANSWERS = [QUESTION, QUESTION, "Why?"], [ANSWER, "No — 没有.", ""]
COLUMNS = {
    "image": [FILE, b"", FILE],
    "question": [text.encode() for text in QUESTIONS],
    "response": [text.encode() for text in ANSWERS],
}


async def rows(server: Server, **beside: Any) -> list[Body]:
    items = [
        {"image": b64encode(image).decode() if image else None, "question": question, "response": answer}
        for image, question, answer in zip(COLUMNS["image"], QUESTIONS, ANSWERS, strict=True)
    ]
    results: list[Body] = (await server.rest.post("/score", json={"items": items, **beside})).json()["results"]
    return results


def numbers(results: list[Body]) -> dict[str, list[float]]:
    return {
        "logits": [result["logits"][d] for result in results for d in DIMENSIONS],
        "scores": [result["scores"][d] for result in results for d in DIMENSIONS],
        "reward": [result["reward"] for result in results],
    }


def as_json(**columns: list[Any]) -> Body:
    inputs = [{"name": n, "datatype": "BYTES", "shape": [len(data)], "data": data} for n, data in columns.items()]
    return {"inputs": inputs}


async def test_health_and_metadata(fake: Server) -> None:
    rest = fake.rest
    server = {"name": "medreward", "version": __version__, "extensions": ["binary_tensor_data"]}
    assert (await rest.get("/v2")).json() == server
    assert (await rest.get("/v2/health/live")).json() == {"live": True}
    assert (await rest.get("/v2/health/ready")).json() == {"ready": True}
    about = (await rest.get("/v2/models/fake")).json()
    assert about == (await rest.get("/v2/models/fake/versions/0")).json()
    assert (about["name"], about["versions"], about["platform"]) == ("fake", ["0"], "medreward")
    assert about["inputs"] == [
        {"name": name, "datatype": "BYTES", "shape": [-1]} for name in ("image", "question", "response")
    ]
    assert [(one["name"], one["shape"]) for one in about["outputs"]] == [
        ("logits", [-1, 6]),
        ("scores", [-1, 6]),
        ("reward", [-1]),
    ]
    for path in ("/v2/models/fake/ready", "/v2/models/fake/versions/0/ready"):
        assert (await rest.get(path)).json() == {"name": "fake", "ready": True}


async def test_json(fake: Server) -> None:
    images = [b64encode(image).decode() for image in COLUMNS["image"]]
    body = as_json(image=images, question=QUESTIONS, response=ANSWERS) | {"id": "mine"}
    expected = numbers(await rows(fake))
    for path in (PATH, "/v2/models/fake/versions/0/infer"):
        reply = (await fake.rest.post(path, json=body)).json()
        assert (reply["id"], reply["model_name"], reply["model_version"]) == ("mine", "fake", "0")
        assert {one["name"]: one["data"] for one in reply["outputs"]} == expected
        assert [(one["datatype"], one["shape"]) for one in reply["outputs"]] == [
            ("FP64", [3, 6]),
            ("FP64", [3, 6]),
            ("FP64", [3]),
        ]
    chosen = (await fake.rest.post(PATH, json=body | {"outputs": [{"name": "reward"}]})).json()
    assert [one["name"] for one in chosen["outputs"]] == ["reward"]


async def test_json_in_other_shapes(fake: Server) -> None:
    plain = (await fake.rest.post(PATH, json=infer(QUESTION, ANSWER))).json()["outputs"]
    column = [{"name": n, "datatype": "BYTES", "shape": [1, 1], "data": [[t]]} for n, t in texts(QUESTION, ANSWER)]
    assert (await fake.rest.post(PATH, json={"inputs": column})).json()["outputs"] == plain
    encoded = [
        {"name": n, "datatype": "BYTES", "shape": [1], "data": [b64(t)], "parameters": {"content_type": "base64"}}
        for n, t in texts(QUESTION, ANSWER)
    ]
    assert (await fake.rest.post(PATH, json={"inputs": encoded})).json()["outputs"] == plain


def texts(question: str, response: str) -> list[tuple[str, str]]:
    return [("question", question), ("response", response)]


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def outputs(reply: httpx.Response) -> dict[str, list[float]]:
    """The numbers of a reply that has them as bytes, JSON, or both."""
    length = int(reply.headers.get(LENGTH, len(reply.content)))
    found, at = {}, length
    for one in json.loads(reply.content[:length])["outputs"]:
        if "data" in one:
            found[one["name"]] = one["data"]
            continue
        size = one["parameters"]["binary_data_size"]
        found[one["name"]] = list(struct.unpack(f"<{size // 8}d", reply.content[at : at + size]))
        at += size
    assert at == len(reply.content)
    return found


async def test_bytes_behind_the_json(fake: Server) -> None:
    expected = numbers(await rows(fake))
    forms: list[tuple[Body, Body]] = [
        ({}, {}),
        ({}, {"binary_data_output": True}),
        ({"outputs": [{"name": name, "parameters": {"binary_data": True}} for name in expected]}, {}),
        ({"outputs": [{"name": "logits"}, {"name": "scores", "parameters": {"binary_data": True}}]}, {}),
        ({"outputs": [{"name": "reward", "parameters": {"binary_data": False}}]}, {"binary_data_output": True}),
    ]
    for beside, parameters in forms:
        body, headers = binary(beside, COLUMNS, **parameters)
        reply = await fake.rest.post(PATH, content=body, headers=headers)
        names = [one["name"] for one in beside.get("outputs", [{"name": name} for name in expected])]
        assert outputs(reply) == {name: expected[name] for name in names}
        assert reply.headers["x-model-fingerprint"] == fake.engine.serving.ref.fingerprint


async def test_over_grpc_as_contents_and_as_raw_bytes(fake: Server) -> None:
    expected = numbers(await rows(fake))
    message = infer_message("fake", COLUMNS["image"], QUESTIONS, ANSWERS)
    reply = await inference(fake).ModelInfer(message)
    assert (reply.model_name, reply.model_version) == ("fake", "0")
    assert {one.name: list(one.contents.fp64_contents) for one in reply.outputs} == expected
    assert [list(one.shape) for one in reply.outputs] == [[3, 6], [3, 6], [3]]
    for given in message.inputs:
        elements = given.contents.bytes_contents
        message.raw_input_contents.append(b"".join(struct.pack("<I", len(one)) + one for one in elements))
        given.ClearField("contents")
    message.outputs.add(name="reward")
    reply = await inference(fake).ModelInfer(message)
    assert [one.name for one in reply.outputs] == ["reward"]
    assert list(struct.unpack("<3d", reply.raw_output_contents[0])) == expected["reward"]


async def test_the_other_methods_of_grpc(fake: Server) -> None:
    stub = inference(fake)
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (await stub.ModelReady(pb.ModelReadyRequest(name="fake", version="0"))).ready
    assert (await stub.ServerMetadata(pb.ServerMetadataRequest())).name == "medreward"
    about = await stub.ModelMetadata(pb.ModelMetadataRequest(name="fake"))
    assert [(one.name, one.datatype, list(one.shape)) for one in about.outputs] == [
        ("logits", "FP64", [-1, 6]),
        ("scores", "FP64", [-1, 6]),
        ("reward", "FP64", [-1]),
    ]


async def test_reflection_lists_the_service(fake: Server) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (reply,) = [reply async for reply in stub(fake.channel).ServerReflectionInfo(asked)]
    named = {service.name for service in reply.list_services_response.service}
    assert {"inference.GRPCInferenceService", "medreward.v1.RewardService"} <= named


async def test_a_server_that_loads_is_live_and_not_ready() -> None:
    async with running(start=False) as server:
        assert (await server.rest.get("/v2/health/live")).status_code == 200
        for path in ("/v2/health/ready", "/v2/models/fake/ready", "/v2/models/fake"):
            refusal = await server.rest.get(path)
            assert (refusal.status_code, refusal.json()["code"]) == (503, "not_ready")
            assert refusal.json()["error"] == refusal.json()["detail"]
        stub = inference(server)
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready


async def test_parameters_of_the_body_and_of_the_url(fake: Server) -> None:
    weighted = numbers(await rows(fake, weights={"accuracy": 2.0}))["reward"]
    body, headers = binary({}, COLUMNS, weights="accuracy:2")
    assert outputs(await fake.rest.post(PATH, content=body, headers=headers))["reward"] == weighted
    body, headers = binary({}, COLUMNS)
    url = f"{PATH}?weights=accuracy:2"
    assert outputs(await fake.rest.post(url, content=body, headers=headers))["reward"] == weighted


async def test_a_row_that_was_not_scored(fake: Server) -> None:
    columns = COLUMNS | {"image": [FILE, UNKNOWN_HASH.encode(), b""]}
    body, headers = binary({}, columns)
    refusal = await fake.rest.post(PATH, content=body, headers=headers)
    assert (refusal.status_code, refusal.json()["field"]) == (422, "/inputs/1")
    body, headers = binary({}, columns, on_error=None)
    reward = outputs(await fake.rest.post(PATH, content=body, headers=headers))["reward"]
    assert [number is None for number in reward] == [False, True, False]
    body, headers = binary({}, columns, on_error=None, binary_data_output=True)
    reward = outputs(await fake.rest.post(PATH, content=body, headers=headers))["reward"]
    assert [math.isnan(number) for number in reward] == [False, True, False]
    body, headers = binary({}, columns, on_error=-1)
    assert outputs(await fake.rest.post(PATH, content=body, headers=headers))["reward"][1] == -1
    message = infer_message("fake", columns["image"], QUESTIONS, ANSWERS)
    expected = Refusal(grpc.StatusCode.NOT_FOUND, "image_unknown", "/inputs/1")
    assert await refused(inference(fake).ModelInfer(message)) == expected
    message.parameters["on_error"].string_param = "null"
    reward = (await inference(fake).ModelInfer(message)).outputs[2].contents.fp64_contents
    assert [math.isnan(number) for number in reward] == [False, True, False]
    message.parameters["on_error"].double_param = 0.5
    assert (await inference(fake).ModelInfer(message)).outputs[2].contents.fp64_contents[1] == 0.5


def changed(**changes: Any) -> Body:
    """A good body whose second input, the question, is changed."""
    body = as_json(image=[""], question=["q"], response=["r"])
    body["inputs"][1] |= changes
    return body


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_field"),
        ({"inputs": []}, "invalid_field"),
        (as_json(question=["q"]), "invalid_field"),
        (as_json(question=["q"], response=["a", "b"]), "invalid_field"),
        (as_json(image=["", ""], question=["q"], response=["a"]), "invalid_field"),
        (changed(datatype="FP32"), "invalid_field"),
        (changed(shape=[2]), "invalid_field"),
        (changed(shape=[-1]), "invalid_field"),
        (changed(shape=[1] * 9), "invalid_field"),
        (changed(shape=[10**4000] * 8), "invalid_field"),
        (changed(data=[5]), "invalid_field"),
        (changed(data=None), "invalid_field"),
        (changed(parameters={"binary_data_size": 4}), "malformed"),
        (changed(parameters={"binary_data_size": -1}), "malformed"),
        (changed(parameters={"binary_data_size": "4"}), "malformed"),
        (changed(parameters={"content_type": "base64"}, data=["?"]), "invalid_field"),
        (changed() | {"outputs": [{"name": "probs"}]}, "invalid_field"),
        (changed() | {"parameters": {"on_error": "skip"}}, "invalid_field"),
        (changed() | {"parameters": {"weights": {"accuracy": 1}}}, "invalid_field"),
    ],
)
async def test_a_request_that_is_wrong(fake: Server, body: Body, code: str) -> None:
    refusal = await fake.rest.post(PATH, json=body)
    assert 400 <= refusal.status_code < 500
    assert (refusal.json()["code"], refusal.json()["error"]) == (code, refusal.json()["detail"])


@pytest.mark.parametrize("length", ["-1", "x", "99999999", "", "²"])
async def test_a_header_that_lies_about_the_json(fake: Server, length: str) -> None:
    body, _ = binary({}, COLUMNS)
    headers = {LENGTH.encode(): length.encode()}
    refusal = await fake.rest.post(PATH, content=body, headers=headers)
    assert (refusal.status_code, refusal.json()["code"]) == (400, "malformed")


async def test_bytes_that_are_too_few_too_many_or_cut_within_an_element(fake: Server) -> None:
    body, headers = binary({}, COLUMNS)
    cut = body.replace(struct.pack("<I", len(QUESTION)), struct.pack("<I", len(QUESTION) + 10_000), 1)
    for wrong in (body[:-1], body + b"x", cut):
        refusal = await fake.rest.post(PATH, content=wrong, headers=headers)
        assert (refusal.status_code, refusal.json()["code"]) == (400, "malformed")


async def test_a_text_that_is_not_utf_8_is_an_error_of_its_row(fake: Server) -> None:
    body, headers = binary({}, COLUMNS | {"response": [b"\xff", b"a", b"b"]})
    refusal = await fake.rest.post(PATH, content=body, headers=headers)
    assert (refusal.status_code, refusal.json()["code"], refusal.json()["field"]) == (422, "bad_text", "/inputs/0")


async def test_very_many_elements_are_refused_before_they_are_parsed(fake: Server) -> None:
    many = fake.engine.settings.json_values + 1
    body, headers = binary({}, COLUMNS | {"response": [b""] * many})
    refusal = await fake.rest.post(PATH, content=body, headers=headers)
    assert (refusal.status_code, refusal.json()["code"]) == (413, "too_many")
    message = pb.ModelInferRequest(model_name="fake", inputs=[tensor("question", [b""] * many)])
    expected = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "too_many", "")
    assert await refused(inference(fake).ModelInfer(message)) == expected


async def test_another_model_and_another_version(fake: Server) -> None:
    for path in ("other", "fake/versions/1", "fake/versions/00", "other/ready", "fake/versions/1/ready"):
        refusal = await fake.rest.get(f"/v2/models/{path}")
        assert (refusal.status_code, refusal.json()["code"]) == (404, "not_found")
    assert (await fake.rest.post("/v2/models/other/infer", json=infer(QUESTION, ANSWER))).status_code == 404
    message = infer_message("other", [b""], [QUESTION], [ANSWER])
    assert await refused(inference(fake).ModelInfer(message)) == Refusal(grpc.StatusCode.NOT_FOUND, "not_found", "")


async def test_what_is_refused_over_grpc(fake: Server) -> None:
    def message(**changes: Any) -> pb.ModelInferRequest:
        return pb.ModelInferRequest(**{"model_name": "fake", "inputs": [tensor("question", [b"q"])], **changes})

    for wrong in (
        message(),
        message(inputs=[]),
        message(raw_input_contents=[b"", b""]),
        message(raw_input_contents=[b"\x09\x00\x00\x00q"]),
        message(inputs=[tensor("question", [b"q"]), tensor("response", [b"r"])], outputs=[{"name": "probs"}]),
    ):
        refusal = await refused(inference(fake).ModelInfer(wrong))
        assert refusal.status is grpc.StatusCode.INVALID_ARGUMENT
    call: Any = fake.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    assert (await refused(call(b"\xff\xff"))).code == "malformed"
