"""Bodies that mean harm: refused before they cost anything, by a stable code, and nothing of them comes back."""

import asyncio
import gzip
import io
import json
import pickle
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import pictures
from asking import JSON, NoNumbers, Numbers, body_with, check_problem, over_grpc, over_rest, send
from cases import ANSWER, item
from commands import serving
from faults.outside import until
from hostile.attacking import BIG, GOOD, head, memory, peak_memory, raw, timed, unharmed
from medreward.settings import MIB
from serving import Server, running

pytestmark = pytest.mark.slow

CANARY = "Jane-Doe-1970"


def filled(size: int, opening: bytes, filling: bytes, closing: bytes) -> bytes:
    return opening + filling * ((size - len(opening) - len(closing)) // len(filling)) + closing


STRUCTURES: dict[str, tuple[bytes, bytes, bytes]] = {
    "numbers": (b'{"items":[', b"1,", b"1]}"),
    "lists": (b'{"items":[', b"[],", b"1]}"),
    "objects": (b'{"items":[', b"{},", b"1]}"),
    "texts": (b'{"items":["', b'","', b'"]}'),
    "keys": (b'{"a":1', b',"a":1', b"}"),
    "escaped quotes": (b'{"items":["', rb'\\",\"', b'"]}'),
    "no JSON at all": (b"", b"[,", b""),
}


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
async def test_a_body_of_millions_of_values_is_refused_before_it_is_parsed(structure: tuple[bytes, ...]) -> None:
    async with running(body_bytes=BIG) as server, unharmed(server):
        reply, seconds = await timed(server, filled(BIG, *structure))
        check_problem(reply, 413, "too_many")
        assert "32768" in reply.json()["detail"]
        assert seconds < 10  # 0.1 s measured; parsed, it would stop the loop for longer


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"question":' + b"[" * 33 + b"]" * 33 + b"}",
        b'{"question":' + b"[" * 32_000,
    ],
)
async def test_nesting_is_refused_before_it_is_parsed(fake: Server, body: bytes) -> None:
    async with unharmed(fake):
        check_problem(await send(fake, body), 400, "json_too_deep")


async def test_what_stands_in_a_text_is_no_structure(fake: Server) -> None:
    for text in ("," * 100_000, "[{" * 60_000, '"[\\' * 20_000, "\\" * 50_001 + "{" * 50_000):
        reply = await send(fake, json.dumps(GOOD | {"response": text}).encode())
        assert reply.status_code != 413
        assert reply.json().get("code") != "json_too_deep"
    most = {"items": [item(responses=[f"[{n}," for n in range(256)]) for _ in range(64)]}
    assert (await send(fake, json.dumps(most).encode())).status_code == 200


async def test_a_body_in_chunks_of_one_byte_ends_at_its_time_or_its_size() -> None:
    async with running(body_seconds=2, body_bytes=2000, header_seconds=2) as server, unharmed(server):
        too_many = b"".join(b"1\r\n \r\n" for _ in range(2001))
        lines = "Content-Type: application/json", "Transfer-Encoding: chunked"
        assert b" 413 " in (await raw(server.port, head(*lines) + too_many)).partition(b"\r\n")[0]
        assert b" 408 " in (await raw(server.port, head(*lines) + b"1\r\n \r\n")).partition(b"\r\n")[0]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip", "GZIP"])
async def test_a_compressed_body_is_not_unpacked(fake: Server, coding: str) -> None:
    async with unharmed(fake):
        bomb = gzip.compress(b" " * 50 * MIB)
        check_problem(await send(fake, bomb, content_encoding=coding), 415, "media_type")


AMBIGUOUS = {
    "duplicate keys": body_with(', "response": "s"'),
    "trailing bytes": body_with("") + b"{}",
    "byte order mark": b"\xef\xbb\xbf" + body_with(""),
    "NaN": body_with(', "weights": {"overall": NaN}'),
    "Infinity": body_with(', "weights": {"overall": Infinity}'),
}


@pytest.mark.parametrize("body", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_json_that_can_be_read_in_two_ways(fake: Server, body: bytes) -> None:
    async with unharmed(fake):
        check_problem(await send(fake, body), 400, "malformed")


@pytest.mark.parametrize("number", ["1e400", "9223372036854775808", "-9223372036854775809", "true", '"1"', "[1]"])
async def test_numbers_that_are_none_for_a_weight(fake: Server, number: str) -> None:
    async with unharmed(fake):
        reply = await send(fake, body_with(f', "weights": {{"overall": {number}}}'))
        check_problem(reply, 422, "invalid_field", "/weights/overall")


@pytest.mark.parametrize("deadline", ["1e400", "-1", "1.5", "true", "9223372036854775808", "٣"])
async def test_numbers_that_are_none_for_a_deadline(fake: Server, deadline: str) -> None:
    headers = JSON | {"x-deadline-ms": deadline.encode()}
    reply = await fake.rest.post("/score", content=body_with(""), headers=headers)  # type: ignore[arg-type]
    check_problem(reply, 422, "invalid_field", "X-Deadline-Ms")


FOREIGN = ["chat_template", "chat_template_kwargs", "mm_hashes", "prompt_embeds", "trust_remote_code"]


@pytest.mark.parametrize("field", FOREIGN)
async def test_fields_of_other_servers_are_not_known(fake: Server, field: str) -> None:
    for body, pointer in (
        (GOOD | {field: CANARY}, f"/{field}"),
        ({"items": [GOOD | {field: {}}]}, f"/items/0/{field}"),
    ):
        reply = await send(fake, json.dumps(body).encode())
        check_problem(reply, 422, "unknown_field", pointer)
        assert CANARY not in reply.text


async def test_an_empty_response_is_scored_the_same_alone_and_beside_others(tiny: Server) -> None:
    answers = [await over_rest(tiny, GOOD | {"response": text}) for text in ("", " \n\t")]
    beside = await over_rest(tiny, {"items": [item(question=GOOD["question"], responses=["a", "", " \n\t"])]})
    alone = [answer[0] for answer in answers if isinstance(answer, list)]
    assert isinstance(beside, list)
    for one, other in zip(alone, beside[1:], strict=True):
        assert isinstance(one, Numbers)
        assert isinstance(other, Numbers)
        assert (one.logits, one.scores, one.flags) == (other.logits, other.scores, other.flags)
        assert "empty_response" in one.flags


@pytest.mark.parametrize(("count", "code"), [(10_000, "too_many"), (0, "invalid_field")])
async def test_too_many_candidates_and_none(fake: Server, count: int, code: str) -> None:
    body = {"items": [item(responses=["a"] * count)]}
    async with unharmed(fake):
        reply = await send(fake, json.dumps(body).encode())
        check_problem(reply, 413 if count else 422, code, "/items/0/responses")
        assert ("256" if count else "at least one") in reply.json()["detail"]
        answer = await over_grpc(fake, body)
        assert not isinstance(answer, list)
        assert (answer.code, answer.field) == (code, "/items/0/responses")


async def test_ten_thousand_items(fake: Server) -> None:
    reply = await send(fake, json.dumps({"items": [item(response="a")] * 10_000}).encode())
    check_problem(reply, 413, "too_many", "/items")


async def test_equal_candidates_get_equal_scores(tiny: Server) -> None:
    answer = await over_rest(tiny, {"items": [item(responses=[ANSWER, "other", ANSWER, ANSWER])]})
    assert isinstance(answer, list)
    same = [result.logits for n, result in enumerate(answer) if n != 1 and isinstance(result, Numbers)]
    assert len(same) == 3
    assert len(set(same)) == 1


async def test_the_server_takes_its_own_hash_of_an_image(tiny: Server) -> None:
    """The client's names for an image decide nothing: not a header, not a file name, not a media type."""
    one, other = pictures.png(31), pictures.png(32)
    stored = [
        (await tiny.rest.put("/v1/images", content=file, headers={"x-content-sha256": "0" * 64})).json()["sha256"]
        for file in (one, other)
    ]
    assert stored[0] != stored[1]
    answers = [
        await tiny.rest.post("/score", data=dict(GOOD), files={"image": ("same-name.png", file, "image/jpeg")})
        for file in (one, other)
    ]
    inline = [await over_rest(tiny, GOOD | {"image": b64encode(file).decode()}) for file in (one, other)]
    by_hash = [await over_rest(tiny, GOOD | {"image": {"sha256": digest}}) for digest in stored]
    assert inline == by_hash
    assert inline[0] != inline[1]
    overall = [reply.json()["results"][0]["logits"]["overall"] for reply in answers]
    expected = [answer[0].logits[5] for answer in inline if isinstance(answer, list) and isinstance(answer[0], Numbers)]
    assert overall == expected


def form(parts: str, **headers: str) -> dict[str, Any]:
    return {
        "content": parts.encode("latin-1"),
        "headers": {"content-type": "multipart/form-data; boundary=x"} | headers,
    }


def part(name: str, text: str) -> str:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'


END = "--x--\r\n"
FORMS: dict[str, tuple[dict[str, Any], int, str]] = {
    "10,000 parts": (form(part("response", "a") * 10_000 + END), 413, "too_many"),
    "10,000 names": (form("".join(part(f"f{n}", "a") for n in range(10_000)) + END), 413, "too_many"),
    "a boundary of 1 MB": (
        form("", **{"content-type": "multipart/form-data; boundary=" + "x" * MIB}),
        431,
        "headers_too_large",
    ),
    "a boundary of 10 KB": (
        form("", **{"content-type": "multipart/form-data; boundary=" + "x" * 10_000}),
        400,
        "malformed",
    ),
    "100,000 headers of a part": (
        form("--x\r\n" + "a: b\r\n" * 100_000 + "\r\nx\r\n" + END),
        400,
        "malformed",
    ),
    "bad UTF-8 in a text": (form(part("question", "q") + part("response", "\xff\xfe") + END), 400, "malformed"),
    "latin-1, said to be": (
        form(
            part("question", "q") + part("response", "\xe9t\xe9") + END,
            **{"content-type": "multipart/form-data; boundary=x; charset=latin-1"},
        ),
        400,
        "malformed",
    ),
    "cut short": (form(part("question", "q")[:-20]), 422, "invalid_field"),
}


@pytest.mark.parametrize(("sent", "status", "code"), FORMS.values(), ids=FORMS)
async def test_forms_that_mean_harm(fake: Server, sent: dict[str, Any], status: int, code: str) -> None:
    async with unharmed(fake):
        reply = await fake.rest.post("/score", **sent)
        assert (reply.status_code, reply.json()["code"]) == (status, code)


def an_npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


UNPICKLED: list[str] = []


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return UNPICKLED.append, ("harm",)


@pytest.mark.parametrize(
    "body", [pickle.dumps(Evil()), an_npz(), b"\x82\xa8question\xa1q"], ids=["pickle", "npz", "msgpack"]
)
@pytest.mark.parametrize(
    "kind", ["application/octet-stream", "application/x-pickle", "application/msgpack", "application/x-npz"]
)
async def test_other_kinds_of_body_are_never_unpacked(fake: Server, body: bytes, kind: str) -> None:
    async with unharmed(fake):
        check_problem(await send(fake, body, content_type=kind), 415, "media_type")
        check_problem(await send(fake, body), 400, "malformed")
    assert not UNPICKLED


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "x" * 10_000, "sha256:unknown"], ids=["a path", "10 KB", "unknown"]
)
async def test_another_models_name_opens_nothing(fake: Server, name: str) -> None:
    """A model is named by its fingerprint, and on the V2 routes by its name."""
    async with unharmed(fake):
        reply = await send(fake, body_with(""), x_model_fingerprint=name)
        check_problem(reply, 409, "version_changed")
        assert name not in reply.text
        opened = await fake.rest.get(f"/v2/models/{name}")
        assert (opened.status_code, opened.json()["code"]) == (404, "not_found")
        assert name not in opened.text


async def test_one_bad_item_of_32_leaves_the_others_their_scores(tiny: Server) -> None:
    items = [item(response=f"Finding {n}.") for n in range(32)]
    items[13] |= {"image": "not base64"}
    for ask in (over_rest, over_grpc):
        if ask is over_grpc:
            items[13] |= {"image": b64encode(b"no image").decode()}
        together = await ask(tiny, {"items": items})
        assert isinstance(together, list)
        for n, result in enumerate(together):
            if n == 13:
                assert isinstance(result, NoNumbers)
                continue
            alone = await ask(tiny, {"items": [items[n]]})
            assert isinstance(alone, list)
            assert isinstance(result, Numbers)
            assert isinstance(alone[0], Numbers)
            assert result.logits == alone[0].logits


async def test_the_largest_request_is_admitted_by_cost_or_refused() -> None:
    """64 items of 256 long responses and large images: more than the queue holds, so an overload and not a crash."""
    image = b64encode(pictures.png(3, 500, 500)).decode()
    items = [item(image=image, responses=[f"{n} {m} " + "word " * 40 for m in range(256)]) for n in range(64)]
    async with (
        running(body_bytes=BIG * 3, body_seconds=60, image_bytes=2 * MIB, queue_cost=20_000) as server,
        unharmed(server),
    ):
        body = {"items": items}
        reply, _ = await timed(server, json.dumps(body).encode())
        if reply.status_code == 200:
            codes = {result.get("error", {}).get("code") for result in reply.json()["results"]}
            assert codes <= {None, "overloaded"}
            assert "overloaded" in codes
        else:
            check_problem(reply, 503, "overloaded")


@pytest.mark.parametrize(("lane", "status"), [("bulk", 503), ("interactive", 429)])
async def test_bodies_beyond_the_budget_are_shed(lane: str, status: int) -> None:
    async with running(bodies_bytes=1 * MIB, body_seconds=20) as server, unharmed(server):
        arriving = asyncio.Event()

        async def half() -> AsyncIterator[bytes]:
            yield body_with("")[:-1] + b" " * (800 * 1024)
            await arriving.wait()
            yield b"}"

        first = asyncio.create_task(server.rest.post("/score", content=half(), headers=JSON))
        await until(lambda: server.engine.bodies.held >= 800 * 1024)
        too_much = body_with("") + b" " * (400 * 1024)
        for sent in (too_much, several(too_much)):
            reply = await server.rest.post("/score", content=sent, headers=JSON | {"x-lane": lane})
            check_problem(reply, status, "overloaded")
            assert reply.headers["retry-after"] == "1"
        arriving.set()
        assert (await first).status_code == 200
        assert (await server.rest.post("/score", content=too_much, headers=JSON)).status_code == 200


async def several(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 65_536):
        yield body[at : at + 65_536]


@pytest.mark.slow
async def test_b25_many_large_bodies_take_bounded_memory(tmp_path: Path) -> None:
    """A server of its own: forty bodies of 8 MiB at once, a budget of 64 MiB."""
    flags = "--bodies-bytes", str(64 * MIB)
    body = filled(8 * MIB, b'{"question": "q", "response": "', b"\xc3\xa9", b'"}')
    with serving(tmp_path, *flags) as served:
        before = memory(served)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=60, limits=limits) as client:
            calls = (client.post("/score", content=several(body), headers=JSON) for _ in range(40))
            replies = await asyncio.gather(*calls, return_exceptions=True)
            codes = {reply.json()["code"] for reply in replies if isinstance(reply, httpx.Response)}
            assert codes <= {"overloaded", "too_long"}
            assert "overloaded" in codes
            assert (await client.post("/score", json=GOOD)).status_code == 200
        assert peak_memory(served) - before < 400 * MIB  # without a budget: 40 times 8 MiB and their texts
