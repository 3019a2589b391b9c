"""With keys, every trainer's route works by `http://x:KEY@host`, for a URL is all that most trainers can send."""

from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import httpx
import pytest

from api.compat.shapes import ROUTES, infer_message, inference, submit
from asking import Refusal, check_problem, refusal_of
from cases import ANSWER, QUESTION
from keyring import KeysFile, bearer
from medreward.proto import inference_pb2
from medreward.types import Lane
from serving import LOOPBACK, Server, running


@dataclass(frozen=True)
class Guarded:
    server: Server
    keys: KeysFile
    key: str

    def url(self, key: str, path: str) -> str:
        return f"http://x:{key}@{LOOPBACK}:{self.server.port}{path}"


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    keys = KeysFile(tmp_path_factory.mktemp("keys") / "keys.jsonl")
    key = keys.new()
    async with running(keys_file=keys.path) as server:
        yield Guarded(server, keys, key)


def basic(name: str, key: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"{name}:{key}".encode()).decode()}


@pytest.mark.parametrize("name", ROUTES)
async def test_a_route_takes_the_key_from_the_url(guarded: Guarded, name: str) -> None:
    path, body, _ = ROUTES[name]
    path, sent = path.format("fake"), body(QUESTION, ANSWER)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.post(guarded.url(guarded.key, path), json=sent)).status_code == 200
        for wrong in (guarded.key[:-1], ""):
            refused = await client.post(guarded.url(wrong, path), json=sent)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    without = await guarded.server.rest.post(path, json=sent)
    assert (without.status_code, without.headers["www-authenticate"]) == (401, "Bearer")
    assert (await guarded.server.rest.post(path, json=sent, headers=bearer(guarded.key))).status_code == 200


async def test_every_route_of_rest_takes_basic(guarded: Guarded) -> None:
    rest = guarded.server.rest
    for path in ("/v1/model", "/v1/limits", "/docs", "/openapi.json", "/v2", "/v2/health/ready", "/v2/models/fake"):
        assert (await rest.get(path)).status_code == 401
        for name in ("", "anything", "a b"):
            assert (await rest.get(path, headers=basic(name, guarded.key))).status_code == 200
    body = {"question": QUESTION, "response": ANSWER}
    assert (await rest.post("/score", json=body, headers=basic("x", guarded.key))).status_code == 200


@pytest.mark.parametrize("written", ["Basic", "Basic !", "Basic eDp5", "Basic //8=", "Basic " + "A" * 9000])
async def test_a_basic_header_without_a_key(guarded: Guarded, written: str) -> None:
    check_problem(
        await guarded.server.rest.get("/v1/model", headers={"authorization": written}), 401, "unauthenticated"
    )


async def test_rolls_header_is_a_key_too_and_one_key_is_enough(guarded: Guarded) -> None:
    rest, key = guarded.server.rest, bearer(guarded.key)["authorization"]
    sent = submit(QUESTION, ANSWER)
    assert (await rest.post("/roll/submit", json=sent)).status_code == 401
    assert (await rest.post("/roll/submit", json=sent, headers={"XRL-Authorization": key})).status_code == 200
    both = {"XRL-Authorization": key, "authorization": key}
    assert (await rest.post("/roll/submit", json=sent, headers=both)).status_code == 401


async def test_a_result_of_roll_is_told_to_its_own_tenant_alone(guarded: Guarded) -> None:
    rest, other = guarded.server.rest, guarded.keys.new(tenant="other")
    id_ = (await rest.post("/roll/submit", json=submit(QUESTION, ANSWER), headers=bearer(guarded.key))).json()
    asked = {"reward_request_id": id_["reward_request_id"]}
    assert (await rest.request("GET", "/roll/result", json=asked, headers=bearer(guarded.key))).status_code == 200
    while (refused := await rest.request("GET", "/roll/result", json=asked, headers=bearer(other))).status_code == 401:
        pass  # the new key is not read yet
    check_problem(refused, 404, "not_found", "/reward_request_id")


async def test_the_open_inference_protocol_over_grpc(guarded: Guarded) -> None:
    message = infer_message("fake", [b""], [QUESTION], [ANSWER])
    stub = inference(guarded.server)
    for metadata in (bearer(guarded.key), basic("x", guarded.key)):
        assert (await stub.ModelInfer(message, metadata=tuple(metadata.items()))).model_name == "fake"
    for method in ("ModelInfer", "ServerLive", "ModelMetadata"):
        request = getattr(inference_pb2, f"{method}Request")()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(stub, method)(request)
        assert refusal_of(refused.value) == Refusal(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", "")


async def test_a_quota_counts_the_samples(guarded: Guarded) -> None:
    key = guarded.keys.new(triples_per_second=0.1)
    path, body, _ = ROUTES["OpenRLHF"]
    one = body(QUESTION, ANSWER)
    two = {name: column * 2 for name, column in one.items()}
    headers = bearer(key)
    while (reply := await guarded.server.rest.post(path, json=two, headers=headers)).status_code == 401:
        pass  # the new key is not read yet
    assert reply.status_code == 200
    refused = await guarded.server.rest.post(path, json=one, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (503, "quota_exceeded")


async def test_a_lane_that_the_key_may_not_use(guarded: Guarded) -> None:
    key = guarded.keys.new(lanes=[Lane.BULK])
    headers = bearer(key) | {"x-lane": "interactive"}
    path, body, _ = ROUTES["slime"]
    sent = body(QUESTION, ANSWER)
    while (refused := await guarded.server.rest.post(path, json=sent, headers=headers)).status_code == 401:
        pass  # the new key is not read yet
    check_problem(refused, 403, "forbidden", "X-Lane")
