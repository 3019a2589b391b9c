"""The clients of Triton and KServe against the Open Inference Protocol's doors."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from commands import Served
from medreward.types import DIMENSIONS
from trainers.children import QUESTION, RESPONSES, Child, Raised, child, new_image, results
from trainers.killing import with_worker_killed

pytestmark = pytest.mark.slow

MODEL = "medreward-mini"


@pytest.fixture(scope="module")
def triton() -> Iterator[Child]:
    with child("real_tritonclient.py") as triton:
        yield triton


@pytest.fixture(scope="module")
def kserve() -> Iterator[Child]:
    with child("real_kserve.py") as kserve:
        yield kserve


def rows(image: bytes, responses: list[str] = RESPONSES) -> list[dict[str, str]]:
    encoded = b64encode(image).decode()
    return [{"image": encoded, "question": QUESTION, "response": response} for response in responses]


def expected(served: Served, image: bytes) -> dict[str, Any]:
    found = results(served, RESPONSES, image)
    numbers = {
        name: [[result[name][dimension] for dimension in DIMENSIONS] for result in found]
        for name in ("logits", "scores")
    }
    return {**numbers, "reward": [result["reward"] for result in found]}


@pytest.mark.parametrize(("way", "more"), [("http", {"binary": True}), ("http", {"binary": False}), ("http_aio", {})])
def test_tritons_client_over_http(triton: Child, served: Served, way: str, more: dict[str, bool]) -> None:
    image = new_image(40)
    address = served.url.removeprefix("http://")
    assert triton.call(way, url=address, model=MODEL, rows=rows(image), **more) == expected(served, image)


@pytest.mark.parametrize("way", ["grpc", "grpc_aio"])
def test_tritons_client_over_grpc(triton: Child, served: Served, way: str) -> None:
    image = new_image(40)
    address = f"127.0.0.1:{served.grpc_port}"
    assert triton.call(way, url=address, model=MODEL, rows=rows(image)) == expected(served, image)


def test_tritons_clients_read_readiness_and_metadata(triton: Child, served: Served) -> None:
    addresses = {"http_url": served.url.removeprefix("http://"), "grpc_url": f"127.0.0.1:{served.grpc_port}"}
    http, grpc, *models = triton.call("about", model=MODEL, **addresses)
    assert http == grpc == [True, True, True]
    for about in models:
        assert about["name"] == MODEL
        assert [one["name"] for one in about["inputs"]] == ["image", "question", "response"]
        assert [one["name"] for one in about["outputs"]] == ["logits", "scores", "reward"]


def test_kserves_client(kserve: Child, served: Served) -> None:
    image = new_image(41)
    wanted = expected(served, image)
    for binary in (True, False):
        assert kserve.call("rest", url=served.url, model=MODEL, rows=rows(image), binary=binary) == wanted
    assert kserve.call("grpc", url=f"127.0.0.1:{served.grpc_port}", model=MODEL, rows=rows(image)) == wanted


def test_an_image_that_is_none_is_an_error_of_the_client(triton: Child, served: Served) -> None:
    address = served.url.removeprefix("http://")
    with pytest.raises(Raised, match="InferenceServerException"):
        triton.call("http", url=address, model=MODEL, rows=rows(b"no image"), binary=True)


def test_a_killed_worker_costs_no_number(triton: Child, victim: Served) -> None:
    """The client knows no retry: it has the numbers, because the worker's successor scored them, or an error."""
    found = with_worker_killed(
        victim,
        lambda: triton.call("http", url=victim.url.removeprefix("http://"), model="fake", rows=texts(), binary=True),
    )
    assert found["reward"] == [result["reward"] for result in results(victim, RESPONSES)]


def texts() -> list[dict[str, str]]:
    return [{"image": "", "question": QUESTION, "response": response} for response in RESPONSES]
