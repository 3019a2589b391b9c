"""Bodies of the REST door: how strict JSON is, base64, multipart, size and time."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx import Response

import pictures
from asking import JSON, NoNumbers, Numbers, body_with, check_problem, over_rest, post, send
from cases import ANSWER, QUESTION, SCAN, b64, item
from medreward.api.rest.reply_shapes import ScoreReply
from medreward.settings import MIB
from serving import BODY_BYTES, LOOPBACK, Server, running

MALFORMED = {
    "empty": b"",
    "not JSON": b"hello",
    "trailing bytes": body_with("") + b" x",
    "two documents": body_with("") * 2,
    "cut short": body_with("")[:-1],
    "trailing comma": body_with(","),
    "comment": body_with("/* */"),
    "byte order mark": b"\xef\xbb\xbf" + body_with(""),
    "UTF-16": body_with("").decode().encode("utf-16"),
    "bad UTF-8": b'{"question": "\xff", "response": "r"}',
    "repeated key": body_with(', "response": "s"'),
    "repeated key deep inside": body_with(', "weights": {"overall": 1, "overall": 2}'),
    "NaN": body_with(', "weights": {"overall": NaN}'),
    "Infinity": body_with(', "weights": {"overall": -Infinity}'),
    "integer of 5,000 digits": body_with(f', "weights": {{"overall": {"9" * 5000}}}'),
    "control character in a string": b'{"question": "a\x00b", "response": "r"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_a_body_that_is_not_json(fake: Server, body: bytes) -> None:
    check_problem(await send(fake, body), 400, "malformed")


WRONG_SHAPES: dict[str, tuple[bytes, str, str | None]] = {
    "an array": (b"[]", "invalid_field", None),
    "null": (b"null", "invalid_field", None),
    "empty object": (b"{}", "invalid_field", "/question"),
    "no response": (b'{"question": "q"}', "invalid_field", "/response"),
    "null question": (b'{"question": null, "response": "r"}', "invalid_field", "/question"),
    "number for a text": (b'{"question": "q", "response": 1}', "invalid_field", "/response"),
    "list for a text": (b'{"question": "q", "response": ["r"]}', "invalid_field", "/response"),
    "number for an image": (body_with(', "image": 7'), "invalid_field", "/image"),
    "list for an image": (body_with(', "image": ["x"]'), "invalid_field", "/image"),
    "image object without a source": (body_with(', "image": {}'), "invalid_field", "/image"),
    "image object with two sources": (body_with(', "image": {"url": "u", "sha256": "0"}'), "invalid_field", "/image"),
    "unknown source of an image": (body_with(', "image": {"path": "x"}'), "unknown_field", "/image/path"),
    "number for base64": (body_with(', "image": {"base64": 1}'), "invalid_field", "/image/base64"),
    "image and images": (body_with(', "image": "x", "images": ["x"]'), "invalid_field", None),
    "unknown source in images": (body_with(', "images": ["x", {"path": "y"}]'), "unknown_field", "/images/1/path"),
    "null among images": (body_with(', "images": [null]'), "invalid_field", "/images/0"),
    "text for images": (body_with(', "images": "x"'), "invalid_field", "/images"),
    "unknown field": (body_with(', "questoin": "q"'), "unknown_field", "/questoin"),
    "unknown field that may be anything": (body_with(', "Jane Doe": 1'), "unknown_field", None),
    "unknown option that may be anything": (
        body_with(', "options": {"Jane Doe": 1}'),
        "unknown_field",
        "/options",
    ),
    "unknown option": (body_with(', "options": {"too_short": 1}'), "unknown_field", "/options/too_short"),
    "null options": (body_with(', "options": null'), "invalid_field", "/options"),
    "unknown field of an item": (
        b'{"items": [{"question": "q", "response": "r", "id": 1}]}',
        "unknown_field",
        "/items/0/id",
    ),
    "both forms at once": (body_with(', "items": []'), "unknown_field", "/question"),
    "response and responses": (
        b'{"items": [{"question": "q", "response": "r", "responses": []}]}',
        "invalid_field",
        "/items/0",
    ),
    "neither response nor responses": (b'{"items": [{"question": "q"}]}', "invalid_field", "/items/0"),
    "object for items": (b'{"items": {}}', "invalid_field", "/items"),
    "null for items": (b'{"items": null}', "invalid_field", "/items"),
    "number among responses": (
        b'{"items": [{"question": "q", "responses": ["a", 1]}]}',
        "invalid_field",
        "/items/0/responses/1",
    ),
    "bool as weight": (body_with(', "weights": {"overall": true}'), "invalid_field", "/weights/overall"),
    "text as weight": (body_with(', "weights": {"overall": "1"}'), "invalid_field", "/weights/overall"),
    "null as weight": (body_with(', "weights": {"overall": null}'), "invalid_field", "/weights/overall"),
    "1e400 as weight": (body_with(', "weights": {"overall": 1e400}'), "invalid_field", "/weights/overall"),
    "an integer too large": (
        body_with(f', "weights": {{"overall": 1{"0" * 400}}}'),
        "invalid_field",
        "/weights/overall",
    ),
    "list of weights": (body_with(', "weights": [1, 2]'), "invalid_field", "/weights"),
    "a turn without content": (body_with(', "history": [{"role": "user"}]'), "invalid_field", "/history/0/content"),
    "a lone surrogate as key": (body_with(', "\\ud800": 1'), "invalid_field", None),
    "a lone surrogate as dimension": (body_with(', "weights": {"\\ud800": 1}'), "invalid_field", "/weights"),
}


@pytest.mark.parametrize(("body", "code", "field"), WRONG_SHAPES.values(), ids=WRONG_SHAPES)
async def test_a_body_of_the_wrong_shape(fake: Server, body: bytes, code: str, field: str | None) -> None:
    check_problem(await send(fake, body), 422, code, field)


@pytest.mark.parametrize("part", ["question", "response"])
async def test_a_lone_surrogate_is_the_items_own_fault(tiny: Server, part: str) -> None:
    body = {"items": [item(response="good"), item(response=ANSWER) | {part: "a\ud800b"}]}
    good, bad = (await post(tiny, body)).json()["results"]
    assert good["status"] == "ok"
    assert bad["error"] | {"message": ""} == {"code": "bad_text", "message": "", "field": f"/items/1/{part}"}


BASE64 = {
    "white space": SCAN[:40] + "\n" + SCAN[40:],
    "trailing newline": SCAN + "\n",
    "URL-safe alphabet": b64(bytes(range(256))).replace("+", "-").replace("/", "_"),
    "no padding": b64(pictures.jpeg() + b"\0" * (1 - len(pictures.jpeg()) % 3)).rstrip("=") + "A",
    "beyond ASCII": "é" + SCAN,
    "data URL": "data:image/jpeg;base64," + SCAN,
    "lone surrogate": "\ud800" + SCAN,
    "one letter": "A",
    "padding only": "====",
}


@pytest.mark.parametrize("image", BASE64.values(), ids=BASE64)
async def test_base64_that_is_not_the_standard_one(tiny: Server, image: str) -> None:
    body = {"items": [item(image=image, response="a"), item(response="a")]}
    answer = await over_rest(tiny, body)
    assert isinstance(answer, list)
    assert answer[0] == NoNumbers(0, 0, "image_invalid", "/items/0/image")
    assert isinstance(answer[1], Numbers)


async def test_both_paths_and_both_forms_are_one_route(tiny: Server) -> None:
    body = {"image": SCAN, "question": QUESTION, "response": ANSWER}
    replies = [await tiny.rest.post(path, json=body) for path in ("/score", "/v1/score")]
    assert numbers(replies[0]) == numbers(replies[1])


async def test_a_reply_is_what_the_schema_says(tiny: Server) -> None:
    reply = await post(
        tiny, {"items": [item(image=SCAN, responses=["asked by no other test", ""]), item(question="", response="a")]}
    )
    score = ScoreReply.model_validate_json(reply.content)
    assert [result.status for result in score.results] == ["ok", "ok", "error"]
    assert score.model.runtime == "onnx/cpu/fp32"
    assert score.timings_ms.total >= score.timings_ms.inference > 0
    assert f"total;dur={score.timings_ms.total}" in reply.headers["server-timing"]


# multipart


def form(*responses: str) -> dict[str, Any]:
    return {"question": QUESTION, "response": list(responses)}


def numbers(reply: Response) -> list[dict[str, Any]]:
    """The results, whichever of them came from the cache."""
    return [{name: value for name, value in result.items() if name != "cached"} for result in reply.json()["results"]]


async def test_multipart_equals_json(tiny: Server) -> None:
    file = {"image": ("scan.jpg", pictures.jpeg(), "image/jpeg")}
    reply = await tiny.rest.post("/score", data=form(ANSWER, "no", ""), files=file)
    same = await post(tiny, {"items": [item(image=SCAN, responses=[ANSWER, "no", ""])]})
    assert numbers(reply) == numbers(same)


async def test_multipart_without_an_image(tiny: Server) -> None:
    reply = await tiny.rest.post("/score", data=form(ANSWER), files={"question": (None, QUESTION)} | {})
    check_problem(reply, 422, "invalid_field", "/question")  # twice given
    reply = await tiny.rest.post("/score", files=[("question", (None, QUESTION)), ("response", (None, ANSWER))])
    assert reply.json()["results"][0]["flags"] == ["no_image"]


async def test_an_error_of_the_one_response_of_a_form_is_the_status(tiny: Server) -> None:
    file = {"image": ("scan.jpg", b"nothing", "image/jpeg")}
    check_problem(await tiny.rest.post("/score", data=form(ANSWER), files=file), 415, "image_kind", "/image")
    reply = await tiny.rest.post("/score", data=form(ANSWER, "\x00"), files={"image": pictures.jpeg()})
    assert reply.json()["results"][0]["status"] == "ok"
    assert reply.json()["results"][1]["error"]["field"] == "/response"


async def test_a_large_image_of_a_form_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_disk(_: object) -> None:
        raise AssertionError("a patient's image was written to disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", to_disk)
    async with running(image_bytes=4 * MIB) as server:
        reply = await server.rest.post("/score", data=form(ANSWER), files={"image": pictures.larger_than(2 * MIB)})
    assert reply.status_code == 200


IMAGE = ("image", ("scan.jpg", pictures.jpeg(), "image/jpeg"))
FORMS: dict[str, tuple[list[Any], str | None]] = {
    "no question": ([IMAGE, ("response", (None, "r"))], "/question"),
    "no response": ([IMAGE, ("question", (None, "q"))], "/response"),
    "question as a file": ([("question", ("q.txt", b"q")), ("response", (None, "r"))], "/question"),
    "image as text": (
        [("image", (None, SCAN)), ("question", (None, "q")), ("response", (None, "r"))],
        "/image",
    ),
}


@pytest.mark.parametrize(("fields", "field"), FORMS.values(), ids=FORMS)
async def test_a_form_of_the_wrong_shape(fake: Server, fields: list[Any], field: str | None) -> None:
    check_problem(await fake.rest.post("/score", files=fields), 422, "invalid_field", field)


async def test_an_unknown_field_of_a_form(fake: Server) -> None:
    check_problem(await fake.rest.post("/score", files=[IMAGE], data=form("r") | {"extra": "x"}), 422, "unknown_field")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x"])
async def test_a_broken_form(fake: Server, kind: str) -> None:
    check_problem(await send(fake, body_with(""), content_type=kind), 400, "malformed")


async def test_two_images_in_a_form(fake: Server) -> None:
    check_problem(await fake.rest.post("/score", files=[IMAGE, IMAGE], data=form("r")), 400, "malformed")


# the body as such


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])
async def test_another_kind_of_body(fake: Server, kind: str) -> None:
    check_problem(await send(fake, body_with(""), content_type=kind), 415, "media_type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_ways_to_say_json(fake: Server, kind: str) -> None:
    assert (await send(fake, body_with(""), content_type=kind)).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_a_compressed_body(fake: Server, coding: str) -> None:
    check_problem(await send(fake, body_with(""), content_encoding=coding), 415, "media_type")
    assert (await send(fake, body_with(""), content_encoding="identity")).status_code == 200


async def chunks(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 65_536 + 1):
        yield b" " * 65_536


@pytest.mark.parametrize("path", ["/score", "/v1/images"])
async def test_a_body_too_large(fake: Server, path: str) -> None:
    method = "POST" if path == "/score" else "PUT"
    declared = await fake.rest.request(method, path, content=b" " * (BODY_BYTES + 1), headers=JSON)
    check_problem(declared, 413, "body_too_large")
    chunked = await fake.rest.request(method, path, content=chunks(BODY_BYTES), headers=JSON)
    check_problem(chunked, 413, "body_too_large")


async def test_a_body_just_within_the_limit(fake: Server) -> None:
    body = body_with("")
    assert (await send(fake, body + b" " * (BODY_BYTES - len(body)))).status_code == 200


async def test_a_body_that_never_ends() -> None:
    async with running(body_seconds=0.2) as server:

        async def trickle() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b" "
                await asyncio.sleep(0.05)

        check_problem(await server.rest.post("/score", content=trickle(), headers=JSON), 408, "slow_body")


async def test_a_client_that_leaves_in_the_middle_of_its_body(fake: Server, caplog: pytest.LogCaptureFixture) -> None:
    _, writer = await asyncio.open_connection(LOOPBACK, fake.port)
    writer.write(
        b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.sleep(0.1)
    assert not [record for record in caplog.records if record.exc_info]
