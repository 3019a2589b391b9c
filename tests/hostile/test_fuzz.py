"""Random requests of every kind: none ends in a fault of ours, none hangs, nothing grows, the good score stays."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from asking import JSON
from commands import Served, serving
from hostile.attacking import GOOD, memory
from medreward.proto import reward_pb2 as pb
from medreward.settings import MIB
from serving import LOOPBACK

pytestmark = pytest.mark.slow

FAULTS = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
BOUNDED = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

Target = tuple[Served, httpx.Client, grpc.Channel]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server of its own, whose memory is watched over all the tests here."""
    with (
        serving(tmp_path_factory.mktemp("fuzzed")) as served,
        httpx.Client(base_url=served.url, trust_env=False, timeout=60) as client,
        grpc.insecure_channel(f"{LOOPBACK}:{served.grpc_port}") as channel,
    ):
        before = score(client)
        for _ in range(20):
            score(client)
        resident = memory(served)
        yield served, client, channel
        assert score(client) == before
        assert memory(served) - resident < 150 * MIB
        assert httpx.get(f"{served.admin_url}/admin/state", timeout=60).json()["request_bytes"] == 0
        faults = [line for line in served.log.read_text().splitlines() if json.loads(line)["level"] == "error"]
        assert faults == []


def score(client: httpx.Client) -> Any:
    reply = client.post("/score", json=GOOD)
    assert reply.status_code == 200, reply.text
    return reply.json()["results"][0]["logits"]


TEXTS = st.text(max_size=20) | st.sampled_from(["", "\x00", "\ud800", "[SEP]", "/", "sha256", "A" * 5000])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))
FIELDS = ["image", "images", "question", "response", "responses", "history", "items", "weights", "options", "extra"]
FORMS: list[Any] = [
    GOOD | {"image": None, "weights": {"overall": 1.0}, "options": {"too_long": "error"}, "history": []},
    {"items": [{"question": "q", "responses": ["a", "b"]}, GOOD], "weights": {"accuracy": 2}},
    GOOD | {"image": {"sha256": "0" * 64}},
]


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every key of every object and list."""
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from places(node[key])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A valid body, changed in structure, type or bytes."""
    body = json.loads(json.dumps(draw(st.sampled_from(FORMS))))
    for _ in range(draw(st.integers(1, 3))):
        node, key = draw(st.sampled_from(list(places(body))))
        match draw(st.sampled_from(["replace", "remove", "add", "wrap"])):
            case "replace":
                node[key] = draw(TREES)
            case "remove":
                del node[key]
            case "add" if isinstance(node, dict):
                node[draw(st.sampled_from(FIELDS))] = draw(TREES)
            case _:
                node[key] = [node[key]]
        if not list(places(body)):
            break
    written = json.dumps(body).encode()
    return draw(damaged(written)) if draw(st.booleans()) else written


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    start = draw(st.integers(0, len(whole)))
    end = draw(st.integers(start, min(len(whole), start + 20)))
    return whole[:start] + draw(st.binary(max_size=20)) + whole[end:]


def check(reply: httpx.Response) -> None:
    assert reply.status_code < 500, reply.text
    if reply.status_code >= 400:
        assert reply.headers["content-type"] == "application/problem+json"


@BOUNDED
@given(body=bodies())
def test_changed_bodies(target: Target, body: bytes) -> None:
    check(target[1].post("/score", content=body, headers=JSON))


@BOUNDED
@given(body=st.binary(max_size=300), kind=st.sampled_from([*JSON.values(), "multipart/form-data; boundary=x", "x/y"]))
def test_random_bytes(target: Target, body: bytes, kind: str) -> None:
    check(target[1].post("/score", content=body, headers={"content-type": kind}))


FORM = "".join(f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in GOOD.items())


@BOUNDED
@given(body=damaged(f"{FORM}--x--\r\n".encode()))
def test_changed_forms(target: Target, body: bytes) -> None:
    check(target[1].post("/score", content=body, headers={"content-type": "multipart/form-data; boundary=x"}))


def test_what_our_own_description_leads_to(target: Target) -> None:
    """Without schemathesis' pytest plugin, which would load in every test run."""
    schema: Any = schemathesis.openapi.from_dict(target[1].get("/openapi.json").json())
    answers = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:

            @settings(parent=BOUNDED, max_examples=25)
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                reply = case.call(base_url=str(target[1].base_url), timeout=60)
                assert reply.status_code < 500, reply.text
                answers.add(f"{case.method} {case.operation.path} {reply.status_code}")

            with contextlib.suppress(Unsatisfiable):  # a route that takes nothing cannot be given what is wrong
                ask()
    assert {"POST /v1/score 422", "PUT /v1/images 415", "GET /v1/model 200"} <= answers


MESSAGE = pb.ScoreRequest(
    request_id="r",
    items=[pb.Item(question="q", responses=["a", "b"], images=[pb.Image(sha256="0")]), pb.Item(history=[pb.Turn()])],
    weights={"overall": 1.0},
    options=pb.Options(too_long="error"),
    lane="bulk",
).SerializeToString()


@BOUNDED
@given(
    message=st.binary(max_size=300) | damaged(MESSAGE),
    method=st.sampled_from(["Score", "Rank", "PutImage", "GetModel"]),
)
def test_random_and_changed_messages(target: Target, message: bytes, method: str) -> None:
    call: Any = target[2].unary_unary(f"/medreward.v1.RewardService/{method}")
    try:
        call(message, timeout=60)
    except grpc.RpcError as error:
        refused: Any = error
        assert refused.code() not in FAULTS | {grpc.StatusCode.DEADLINE_EXCEEDED}, refused.details()
        assert dict(refused.trailing_metadata())["x-error-code"]


@BOUNDED
@given(messages=st.lists(st.just(MESSAGE) | damaged(MESSAGE), max_size=5))
def test_random_streams(target: Target, messages: list[bytes]) -> None:
    call: Any = target[2].stream_stream("/medreward.v1.RewardService/ScoreStream")
    try:
        assert len(list(call(iter(messages), timeout=60))) == len(messages)
    except grpc.RpcError as error:
        refused: Any = error
        assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT, refused.details()
