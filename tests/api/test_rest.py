"""What only the REST door has beside the scores: ids, routes, stored images, the pages about itself."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI

import pictures
from asking import PROBLEM, body_with, check_problem, post, send
from cases import item
from medreward.api.rest.reply_shapes import ModelReply, StoredReply
from medreward.artifacts.manifest import read_manifest
from medreward.settings import Settings
from medreward.types import DIMENSIONS, Flag
from serving import BODY_BYTES, Server, running


async def test_a_request_id_comes_back(fake: Server) -> None:
    for reply in (
        await send(fake, body_with(""), x_request_id="mine-1"),
        await send(fake, b"", x_request_id="mine-1"),
        await fake.rest.get("/livez", headers={"x-request-id": "mine-1"}),
        await fake.rest.get("/nowhere", headers={"x-request-id": "mine-1"}),
    ):
        assert reply.headers["x-request-id"] == "mine-1"
    assert (await send(fake, body_with(""), x_request_id="mine-1")).json()["id"] == "mine-1"


@pytest.mark.parametrize("silly", ["", "with space", "x" * 129, "tab\there", "é"])
async def test_a_silly_request_id_is_replaced(fake: Server, silly: str) -> None:
    headers = {b"x-request-id": silly.encode("latin-1")}
    reply = await fake.rest.post("/score", json={"question": "q", "response": "r"}, headers=headers)
    assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/v9/score", 404, "not_found"),
        ("GET", "/score", 405, "method_not_allowed"),
        ("DELETE", "/v1/score", 405, "method_not_allowed"),
        ("POST", "/v1/images", 405, "method_not_allowed"),
        ("POST", "/readyz", 405, "method_not_allowed"),
    ],
)
async def test_a_route_that_is_not_there(fake: Server, method: str, path: str, status: int, code: str) -> None:
    reply = await fake.rest.request(method, path)
    check_problem(reply, status, code)
    assert ("allow" in reply.headers) == (status == 405)


# images


async def test_an_image_is_stored_used_and_deleted(fake: Server) -> None:
    file = pictures.png(11, 40, 30)
    first, again = [await fake.rest.put("/v1/images", content=file) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == StoredReply.model_validate_json(first.content).model_dump()
    assert (first.json()["width"], first.json()["height"]) == (40, 30)
    path = f"/v1/images/{first.json()['sha256']}"
    body = {"image": {"sha256": first.json()["sha256"]}, "question": "q", "response": "r"}
    assert (await post(fake, body)).status_code == 200
    assert (await fake.rest.delete(path)).status_code == 204
    check_problem(await fake.rest.delete(path), 404, "not_found")
    check_problem(await post(fake, body), 404, "image_unknown", "/image")


@pytest.mark.parametrize(
    ("file", "status", "code"),
    [
        (b"hello", 415, "image_kind"),
        (b"", 422, "image_invalid"),
        (pictures.animated("PNG"), 422, "image_animated"),
        (pictures.png(0, 4, 4), 422, "image_too_small"),
        (pictures.png_that_claims(50_000, 50_000), 413, "image_too_large"),
    ],
)
async def test_an_image_that_is_not_stored(fake: Server, file: bytes, status: int, code: str) -> None:
    reply = await fake.rest.put("/v1/images", content=file)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.headers["content-type"] == PROBLEM


async def test_the_oldest_image_makes_room() -> None:
    files = [pictures.png(seed) for seed in range(3)]
    async with running(image_store_bytes=len(files[0]) + len(files[1]) + 10) as server:
        stored = [(await server.rest.put("/v1/images", content=file)).json()["sha256"] for file in files]
        body = {"items": [item(image={"sha256": digest}, response="r") for digest in stored]}
        results = (await post(server, body)).json()["results"]
    assert [result["status"] for result in results] == ["error", "ok", "ok"]


async def test_an_image_is_forgotten_after_its_time() -> None:
    async with running(image_store_seconds=0.1) as server:
        digest = (await server.rest.put("/v1/images", content=pictures.png())).json()["sha256"]
        await asyncio.sleep(0.15)
        reply = await post(server, {"image": {"sha256": digest}, "question": "q", "response": "r"})
    check_problem(reply, 404, "image_unknown", "/image")


# about the server


async def test_the_model_page(tiny: Server) -> None:
    reply = ModelReply.model_validate_json((await tiny.rest.get("/v1/model")).content)
    assert (reply.name, reply.backend, reply.device, reply.runtime) == ("tiny", "onnx", "cpu", "onnx/cpu/fp32")
    assert reply.dimensions == list(DIMENSIONS) == list(reply.default_weights)
    assert reply.fingerprint.startswith("sha256:")
    assert reply.card is not None
    scored = (await post(tiny, {"question": "q", "response": "r"})).json()
    assert scored["model"] == reply.model_dump(include=set(scored["model"]), mode="json")


async def test_the_model_page_says_what_its_uncertainty_is(fake: Server, tiny: Server, tiny_folder: Path) -> None:
    assert (await fake.rest.get("/v1/model")).json()["uncertainty"] is None  # a single head
    spread = (await tiny.rest.get("/v1/model")).json()["uncertainty"]
    assert "standard deviation" in spread
    written = read_manifest(tiny_folder / "model.toml")
    described = written.model_copy(update={"uncertainty": "something else"})
    assert described.fingerprint == written.fingerprint


async def test_the_fake_model_says_so_in_every_answer(fake: Server) -> None:
    model = (await post(fake, {"question": "q", "response": "r"})).json()["model"]
    assert (model["name"], model["evidence"]) == ("fake", "none")


async def test_the_limits_page_names_every_limit(tiny: Server) -> None:
    limits = (await tiny.rest.get("/v1/limits")).json()
    limiting = (
        "^(bod|json|header|keep|connections|grpc_calls|items?|responses?|text|explain|deadline|queue"
        "|image(?!_size|_root|_url_(hosts|ca|private)))"
    )
    named = {name for name in Settings.model_fields if re.search(limiting, name)}
    assert set(limits) == named | {"tokens"}
    assert (limits["body_bytes"], limits["tokens"]) == (BODY_BYTES, 512)


async def test_live_and_ready_while_loading_serving_and_draining() -> None:
    async with running(start=False) as server:
        assert (await server.rest.get("/livez")).status_code == 200
        loading = await server.rest.get("/readyz")
        check_problem(loading, 503, "not_ready")
        assert (loading.json()["detail"], loading.headers["retry-after"]) == ("loading", "1")
        for path in ("/v1/model", "/v1/limits"):
            check_problem(await server.rest.get(path), 503, "not_ready")
        check_problem(await send(server, body_with("")), 503, "not_ready")

        await server.engine.start()
        assert (await server.rest.get("/readyz")).json() == {"status": "ready"}
        assert (await send(server, body_with(""))).status_code == 200

        server.engine.drain()
        draining = await server.rest.get("/readyz")
        check_problem(draining, 503, "not_ready")
        assert draining.json()["detail"] == "draining"
        refused = await send(server, body_with(""))
        check_problem(refused, 503, "not_ready")
        assert "retry-after" in refused.headers
        assert (await server.rest.get("/livez")).status_code == 200


async def test_the_pages_need_no_other_host(fake: Server) -> None:
    page = await fake.rest.get("/docs")
    assert page.status_code == 200
    assert re.findall("(?:https?:)?//[a-z]", page.text.lower()) == []
    linked = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert len(linked) >= 2
    for path in linked:
        assert (await fake.rest.get(path)).status_code == 200


async def test_the_openapi_document(fake: Server) -> None:
    document = (await fake.rest.get("/openapi.json")).json()
    OpenAPI.model_validate(document)
    assert {"/v1/score", "/v1/images", "/v1/images/{sha256}", "/v1/model", "/v1/limits"} <= set(document["paths"])
    content = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    forms = [form["$ref"].rpartition("/")[2] for form in content["application/json"]["schema"]["oneOf"]]
    assert forms == ["TripleRequest", "GroupedRequest"]
    assert "multipart/form-data" in content
    schemas = document["components"]["schemas"]
    assert {ref.rpartition("/")[2] for ref in references(document)} <= set(schemas)
    assert "http" not in {ref.partition(":")[0] for ref in references(document)}


async def test_the_document_groups_routes_by_who_uses_them(fake: Server) -> None:
    document = (await fake.rest.get("/openapi.json")).json()
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    routes = [about for methods in document["paths"].values() for about in methods.values()]
    assert described == {tag for about in routes for tag in about["tags"]}
    assert {"trainers", "screening", "images", "operators"} == described
    assert all(about["description"] for about in routes)


async def test_the_document_says_what_each_flag_and_the_uncertainty_are(fake: Server) -> None:
    result = (await fake.rest.get("/openapi.json")).json()["components"]["schemas"]["ResultShape"]["properties"]
    assert [flag for flag in Flag if f"`{flag}`: " not in result["flags"]["description"]] == []
    assert "no probability of error" in result["uncertainty"]["description"]
    assert "0 is sure" in result["uncertainty"]["description"]


async def test_the_examples_of_the_document_are_real(fake: Server) -> None:
    schemas = (await fake.rest.get("/openapi.json")).json()["components"]["schemas"]
    triple, grouped, shown = [schemas[name]["example"] for name in ("TripleRequest", "GroupedRequest", "ScoreReply")]
    assert (await post(fake, grouped)).status_code == 200
    async with running(model="medreward-mini") as server:
        given = (await post(server, triple, {"X-Request-Id": shown["id"]})).json()
        page = (await server.rest.get("/v1/model")).json()
    assert given["model"] == shown["model"]
    assert given["model"]["evidence"] == "constructed"
    assert "1 / cosh" in page["uncertainty"]
    (given_result,), (shown_result,) = given["results"], shown["results"]
    assert set(given_result) == set(shown_result)
    for name in ("scores", "logits", "uncertainty"):
        assert shown_result[name] == pytest.approx(given_result[name], abs=1e-3)
    assert shown_result["reward"] == pytest.approx(given_result["reward"], abs=1e-3)
    assert shown_result["flags"] == given_result["flags"]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


async def test_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as server:
        monkeypatch.setattr(server.engine, "score", None)
        reply = await send(server, body_with(""), x_request_id="mine")
    check_problem(reply, 500, "internal")
    assert "NoneType" not in reply.text
