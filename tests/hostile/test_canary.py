"""A word as a patient's name would be, put wherever a client can put one, is found nowhere afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from io import BytesIO
from typing import Any

import grpc
import httpx
import pytest
import trustme
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import dcmread

import pictures
from cases import Body, b64
from collector import Collector, collecting
from hostile import files
from hostile.outside import Outside, outside, printed
from hostile.site import Site, moved, page, site_at
from medreward.proto import reward_pb2 as pb
from waiting import until

pytestmark = pytest.mark.slow

CANARY = "Zoe-Canary-19610417"
QUESTION = "Is there a fracture?"
SERVICE = "/medreward.v1.RewardService"


def jpeg_with_tags() -> bytes:
    tags = Image.Exif()
    for tag in (0x010E, 0x013B, 0x8298, 0x9286):  # description, artist, copyright, comment
        tags[tag] = CANARY
    return files.saved(Image.fromarray(pictures.pixels()), "JPEG", exif=tags, comment=CANARY.encode())


def png_with_texts() -> bytes:
    texts = PngInfo()
    texts.add_text("Patient", CANARY)
    texts.add_text("Packed", CANARY, zip=True)
    texts.add_itxt("Wide", CANARY)
    tags = Image.Exif()
    tags[0x010E] = CANARY
    return files.saved(Image.fromarray(pictures.pixels()), "PNG", pnginfo=texts, exif=tags)


def webp_with_xmp() -> bytes:
    return files.saved(Image.fromarray(pictures.pixels()), "WEBP", xmp=f"<x>{CANARY}</x>".encode())


def dicom_of_a_patient() -> bytes:
    dataset = dcmread(BytesIO(pictures.dicom()))
    dataset.PatientName = CANARY
    dataset.PatientID = CANARY
    dataset.InstitutionName = CANARY
    file = BytesIO()
    dataset.save_as(file)
    return file.getvalue()


IMAGES = [make() for make in (jpeg_with_tags, png_with_texts, webp_with_xmp, dicom_of_a_patient)]
IMAGES += [file for good in IMAGES[:4] for file in (pictures.cut_short(good), good[:-40] + CANARY.encode())]
IMAGES += [CANARY.encode(), b"\xff\xd8\xff" + CANARY.encode(), bytes(128) + b"DICM" + CANARY.encode()]


@pytest.fixture(scope="module")
async def site() -> AsyncIterator[Site]:
    async with site_at(trustme.CA()) as site:
        there = f"https://127.0.0.1:{site.port}"
        site.pages |= {
            f"/{CANARY}": page(pictures.jpeg(), f"X-Patient: {CANARY}", f"Set-Cookie: {CANARY}=1"),
            f"/{CANARY}/kind": page(CANARY.encode()),
            f"/{CANARY}/moved": moved(f"{there}/{CANARY}"),
            f"/{CANARY}/away": moved(f"https://example.org/{CANARY}"),
            f"/{CANARY}/broken": CANARY.encode(),
            f"/{CANARY}/status": page(b"", status=f"500 {CANARY}"),
        }
        yield site


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
async def server(site: Site, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Outside]:
    folder = tmp_path_factory.mktemp("canary")
    ca = folder / "ca.pem"
    site.authority.cert_pem.write_to_path(str(ca))
    fetching = ("--image-url-hosts", f"127.0.0.1:{site.port}", "--image-url-ca", str(ca), "--image-url-private")
    traces = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    async with outside(folder, "--log-level", "debug", "--decoders", "1", *fetching, **traces) as server:
        yield server


def urls(site: Site) -> list[str]:
    there = f"https://127.0.0.1:{site.port}"
    return [
        *(there + path for path in site.pages),
        f"{there}/missing/{CANARY}",
        f"{there}/?name={CANARY}",
        f"https://{CANARY}@127.0.0.1:{site.port}/",
        f"https://{CANARY}.example.org/",
        f"file:///{CANARY}",
        CANARY,
    ]


def bodies(site: Site) -> list[Body]:
    """Right and wrong ones, one triple each; those that no JSON type fits come as they are."""
    good: Body = {"question": QUESTION, "response": "yes"}
    images: list[Any] = [CANARY, {"base64": CANARY}, {"sha256": CANARY}, {CANARY: CANARY}, [CANARY], {"url": [CANARY]}]
    images += [b64(file) for file in IMAGES] + [{"url": url} for url in urls(site)]
    turn = {"role": "user", "content": CANARY}
    return [
        good | {"question": CANARY, "response": CANARY},
        good | {"response": f"{CANARY}\0"},
        good | {"question": f"{CANARY}\ud800"},
        good | {"response": CANARY * 20_000},
        good | {"response": f"<think>{CANARY}</think>"},
        good | {"question": [CANARY]},
        good | {CANARY: CANARY},
        good | {"history": [turn]},
        good | {"history": [turn | {"role": CANARY}]},
        good | {"history": [turn | {CANARY: 1}]},
        good | {"weights": {CANARY: 1}},
        good | {"weights": {"overall": CANARY}},
        good | {"options": {CANARY: CANARY}},
        good | {"options": {"too_long": CANARY}},
        good | {"options": CANARY},
        {"items": [good | {"question": CANARY, "response": f"{CANARY}\0"}, {CANARY: CANARY}]},
        {"items": CANARY},
        *(good | {"image": image} for image in images),
        {"question": QUESTION, "images": [CANARY, CANARY], "response": CANARY},
    ]


RAW_BODIES = [
    f'{{"question": "{CANARY}'.encode(),
    f'{{"{CANARY}": 1, "{CANARY}": 1}}'.encode(),
    f'{{"question": NaN, "{CANARY}": "{CANARY}"}}'.encode(),
    CANARY.encode(),
    CANARY.encode() + b"\xff",
    f'"{CANARY}"'.encode(),
]
HEADERS = [
    *(
        "X-Lane",
        "X-Deadline-Ms",
        "X-Model-Fingerprint",
        "Authorization",
        "X-Api-Key",
        "User-Agent",
        "Referer",
        "Cookie",
    ),
    *("traceparent", "tracestate", "X-Forwarded-For", "X-Patient", "Accept", "Content-Type", "Content-Encoding"),
    *("Content-Disposition", "Range", "If-None-Match", "Expect", "Origin", "Referer", "Upgrade", f"X-{CANARY}"),
]
NO_REQUEST_ID = [f"{CANARY} with a space", f"{CANARY}\u00e9", f"{CANARY}" * 20]


async def over_rest(server: Outside, site: Site) -> AsyncIterator[httpx.Response]:
    post, triple = server.rest.post, {"question": QUESTION, "response": "yes"}
    json_type = {"content-type": "application/json"}
    for body in bodies(site):
        yield await post("/score", content=json.dumps(body), headers=json_type)
    for raw in RAW_BODIES:
        yield await post("/score", content=raw, headers=json_type)
    for name in HEADERS:
        for value in (CANARY, f"Bearer {CANARY}"):
            yield await post("/score", content=json.dumps(triple), headers={**json_type, name: value})
    for id_ in NO_REQUEST_ID:
        yield await post("/score", json=triple, headers=[(b"X-Request-Id", id_.encode())])
    for file in IMAGES:
        form = {"image": (f"{CANARY}.png", file, f"image/{CANARY}")}
        yield await post("/score", data={"question": CANARY, "response": CANARY}, files=form)
        yield await server.rest.put("/v1/images", content=file, headers={"Content-Type": f"image/{CANARY}"})
    yield await post("/score", data={CANARY: CANARY}, files={CANARY: (CANARY, b"")})
    boundary = {"content-type": f"multipart/form-data; boundary={CANARY}"}
    yield await post("/score", content=f"--{CANARY}\r\nX-{CANARY}\r\n".encode(), headers=boundary)
    for client in (server.rest, server.admin):
        for method in ("GET", "POST", "DELETE", "OPTIONS", f"{CANARY}"):
            for path in (f"/{CANARY}", f"/v1/images/{CANARY}", f"/score?{CANARY}={CANARY}", f"/metrics?{CANARY}"):
                yield await client.request(method, path, headers={"X-Patient": CANARY})


RAW_REQUESTS = [
    f"GET /{CANARY} HTTP/9.9\r\n\r\n",
    f"{CANARY}\r\n\r\n",
    f"GET /{CANARY}\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: {CANARY}\r\nConnection: close\r\n\r\n",
    f"GET http://{CANARY}/{CANARY} HTTP/1.1\r\nHost: {CANARY}\r\nConnection: close\r\n\r\n",
    f"GET / HTTP/1.1\r\n{CANARY}\r\n\r\n",
    f"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {CANARY}\r\n\r\n",
    f"POST /score HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {CANARY}\r\n\r\n",
    f"GET /{CANARY} HTTP/1.1\r\nHost: localhost\r\nX-Patient: {CANARY * 5000}\r\nConnection: close\r\n\r\n",
    f"GET /{CANARY} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {CANARY}\r\n\r\n",
]


async def over_sockets(server: Outside) -> AsyncIterator[bytes]:
    for url in (server.served.url, server.served.admin_url):
        for written in RAW_REQUESTS:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(written.encode())
            writer.write_eof()
            try:
                yield await reader.read()
            except ConnectionError:  # refused in the middle
                continue
            finally:
                writer.close()


def messages(site: Site) -> Iterable[pb.ScoreRequest]:
    item = pb.Item(question=QUESTION, responses=["yes"])
    yield pb.ScoreRequest(items=[pb.Item(question=CANARY, responses=[CANARY, f"{CANARY}\0", CANARY * 20_000])])
    yield pb.ScoreRequest(items=[pb.Item(question=QUESTION, responses=["a"], history=[pb.Turn(role=CANARY)])])
    yield pb.ScoreRequest(
        items=[pb.Item(question=QUESTION, responses=["a"], history=[pb.Turn(role="user", content=CANARY)])]
    )
    for beside in (
        {"weights": {CANARY: 1.0}},
        {"lane": CANARY},
        {"expect_fingerprint": CANARY},
        {"options": pb.Options(too_long=CANARY)},
        {"options": pb.Options(thinking=CANARY)},
    ):
        yield pb.ScoreRequest(items=[item], **beside)
    images = [pb.Image(sha256=CANARY), *(pb.Image(data=file) for file in IMAGES)]
    for image in (*images, *(pb.Image(url=url) for url in urls(site))):
        yield pb.ScoreRequest(items=[pb.Item(images=[image], question=QUESTION, responses=["a"])])


METADATA = [
    *("x-lane", "x-deadline-ms", "x-model-fingerprint", "authorization", "x-patient", "traceparent", CANARY.lower()),
]


async def ended(call: Any) -> str:
    """All that comes back from a call."""
    try:
        return str(await call)
    except grpc.aio.AioRpcError as error:
        return f"{error.details()} {error.trailing_metadata()} {error.initial_metadata()} {error.debug_error_string()}"


async def over_grpc(server: Outside, site: Site) -> AsyncIterator[str]:
    stub, channel = server.stub, server.channel
    for message in messages(site):
        yield await ended(stub.Score(message))
        async for answer in stub.ScoreStream(iter([message])):
            yield str(answer)
    good = pb.ScoreRequest(items=[pb.Item(question=QUESTION, responses=["yes"])])
    for key in METADATA:
        yield await ended(stub.Score(good, metadata=((key, CANARY), ("x-patient-bin", CANARY.encode()))))
    yield await ended(stub.Score(good, metadata=(("x-request-id", f"{CANARY} with a space"),)))
    for file in IMAGES:
        yield await ended(stub.PutImage(pb.PutImageRequest(data=file)))
    for method in (f"{SERVICE}/{CANARY}", f"/{CANARY}/Score", f"{SERVICE}/Score"):
        broken: Any = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
        yield await ended(broken(b"\x0a\xff" + CANARY.encode()))


def nowhere(text: str | bytes) -> bool:
    plain = text if isinstance(text, str) else text.decode("latin-1")
    # gRPC names are lower case; the library's own error text names the method that the client itself called
    return CANARY.lower() not in plain.lower()


async def test_a_canary_sent_everywhere_is_found_nowhere(server: Outside, site: Site, collector: Collector) -> None:
    seen, scored = 0, 0
    async for reply in over_rest(server, site):
        told = f"{reply.status_code} {reply.headers} {reply.text}"
        assert nowhere(told), (reply.request.method, reply.request.url, reply.request.headers, told)
        seen += 1
        scored += reply.status_code == 200
    async for raw in over_sockets(server):
        assert nowhere(raw), raw
    async for told in over_grpc(server, site):
        assert nowhere(told), told
        seen += 1
    assert seen > 250
    assert scored > 50

    for path in ("/metrics", "/admin/state"):
        assert nowhere((await server.admin.get(path)).text)
    await server.rest.get("/livez", headers={"X-Request-Id": "the-last-one"})
    await until(lambda: "the-last-one" in server.served.log.read_text())
    log = server.served.log.read_text()
    assert nowhere(log), [line for line in log.splitlines() if not nowhere(line)]
    requests = [line for line in map(json.loads, log.splitlines()) if line["event"] == "request"]
    assert len(requests) > 250
    assert printed(server) == b""
    await until(lambda: len({span.trace_id for span in collector.spans}) > 250)
    assert collector.events
    assert [body for body in collector.bodies if not nowhere(body)] == []
    assert sorted(file.name for file in server.served.log.parent.iterdir()) == ["ca.pem", "serve.log"]


async def test_a_request_id_is_the_one_thing_that_comes_back_and_is_logged(server: Outside) -> None:
    body = {"question": QUESTION, "response": "yes"}
    reply = await server.rest.post("/score", json=body, headers={"X-Request-Id": "trace-7"})
    assert (reply.json()["id"], reply.headers["x-request-id"]) == ("trace-7", "trace-7")
    await until(lambda: "trace-7" in server.served.log.read_text())  # written after the answer
    lines = [line for line in map(json.loads, server.served.log.read_text().splitlines()) if "trace-7" in str(line)]
    assert [(line["event"], line["request_id"]) for line in lines] == [("request", "trace-7")]


async def test_an_id_that_is_none_is_answered_over_grpc_but_not_logged(server: Outside) -> None:
    written = f"{CANARY} with a space"
    item = pb.Item(question=QUESTION, responses=["yes"])
    assert (await server.stub.Score(pb.ScoreRequest(request_id=written, items=[item]))).request_id == written
    answered = (await server.stub.Score(pb.ScoreRequest(request_id="after-it", items=[item]))).request_id
    await until(lambda: answered in server.served.log.read_text())
    assert nowhere(server.served.log.read_text())
