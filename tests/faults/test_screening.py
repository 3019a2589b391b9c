"""Whatever breaks, no door that decides allows an answer: it is unscored, or the request is a problem."""

import asyncio
import math
import os
import signal
import threading
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from cases import SCAN, b64
from commands import Served, serving
from faults.outside import replaced, state, worker
from faults.outside import until as until_outside
from medreward.backends.fake import FAKE_MANIFEST, FakeBackend
from medreward.engine import serving as engine_serving
from medreward.errors import Code, RequestError
from medreward.proto import reward_pb2 as pb
from medreward.proto import reward_pb2_grpc
from medreward.screening.screening import Screened
from medreward.workers.decode.pool import DecoderLost, Decoders
from medreward.workers.device.runner import Done
from medreward.workers.device.worker import InlineWorker, WorkerLost
from medreward.workers.frames import GroupFrame
from pictures import jpeg
from policies import policy_text, publish, threshold
from serving import Server, running
from waiting import until

QUESTION = "Is there a fracture?"
Headers = dict[str, str]


@dataclass(frozen=True)
class Asked:
    response: str
    image: str = SCAN  # base64, or a URL
    headers: Headers = field(default_factory=dict)

    @property
    def image_shape(self) -> Any:
        return {"url": self.image} if self.image.startswith("https:") else self.image

    @property
    def image_message(self) -> pb.Image:
        return pb.Image(url=self.image) if self.image.startswith("https:") else pb.Image(data=b64decode(self.image))


# The doors: each gives the verdict, and the code of the error if there is one.

Outcome = tuple[str, str]
PROBLEM = "problem"


async def over_rest(rest: httpx.AsyncClient, _: Any, asked: Asked) -> Outcome:
    body = {"image": asked.image_shape, "question": QUESTION, "response": asked.response}
    reply = await rest.post("/v1/screen", json=body, headers=asked.headers)
    if reply.status_code != 200:
        return PROBLEM, reply.json()["code"]
    (result,) = reply.json()["results"]
    return result["verdict"], (result.get("error") or {"code": ""})["code"]


async def over_rest_with_problems(rest: httpx.AsyncClient, _: Any, asked: Asked) -> Outcome:
    item = {"image": asked.image_shape, "question": QUESTION, "responses": [asked.response]}
    body = {"items": [item], "on_unscored": "problem"}
    reply = await rest.post("/v1/screen", json=body, headers=asked.headers)
    return (reply.json()["results"][0]["verdict"], "") if reply.is_success else (PROBLEM, reply.json()["code"])


async def over_grpc(_: Any, stub: Any, asked: Asked) -> Outcome:
    item = pb.Item(question=QUESTION, responses=[asked.response], images=[asked.image_message])
    try:
        reply = await stub.Screen(pb.ScreenRequest(items=[item]), metadata=tuple(asked.headers.items()))
    except grpc.aio.AioRpcError as error:
        return PROBLEM, str(dict(error.trailing_metadata() or ()).get("x-error-code"))
    return reply.decisions[0].verdict, reply.results[0].error.code


async def over_litellm(rest: httpx.AsyncClient, _: Any, asked: Asked) -> Outcome:
    url = asked.image if asked.image.startswith("https:") else f"data:image/jpeg;base64,{asked.image}"
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": parts}]
    body = {"input_type": "response", "texts": [asked.response], "structured_messages": messages}
    reply = (await rest.post("/beta/litellm_basic_guardrail_api", json=body, headers=asked.headers)).json()
    if "action" not in reply:
        return PROBLEM, reply["code"]
    if reply["action"] == "NONE":
        return "allow", ""
    verdict, _, code = reply["blocked_reason"].partition(" (")[0].partition(": ")
    return (verdict, code) if reply["decision_id"] else (PROBLEM, verdict)


async def over_moderation(rest: httpx.AsyncClient, _: Any, asked: Asked) -> Outcome:
    body = {"input": asked.response, "question": QUESTION, "image": asked.image}
    reply = await rest.post("/v1/moderations", json=body, headers=asked.headers)
    if reply.status_code != 200:
        return PROBLEM, reply.json()["code"]
    (result,) = reply.json()["results"]
    assert result["flagged"] == (result["verdict"] != "allow")
    return result["verdict"], (result["error"] or {"code": ""})["code"]


DOORS: dict[str, Callable[[httpx.AsyncClient, Any, Asked], Awaitable[Outcome]]] = {
    "rest": over_rest,
    "rest, problems": over_rest_with_problems,
    "grpc": over_grpc,
    "litellm": over_litellm,
    "moderation": over_moderation,
}


async def through_all_doors(server: Server, image: str = SCAN, headers: Headers | None = None) -> dict[str, Outcome]:
    """Each with a response of its own, so that none has the score of another."""
    asked = {name: Asked(f"answer by {name}", image, headers or {}) for name in DOORS}
    return {name: await door(server.rest, server.stub, asked[name]) for name, door in DOORS.items()}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that has a score is allowed."""
    folder = tmp_path_factory.mktemp("policies")
    publish(folder, policy_text(threshold("all", "allow", -99.0), fingerprint=FAKE_MANIFEST.fingerprint))
    return folder


def check(outcomes: dict[str, Outcome], *codes: str) -> None:
    assert outcomes.keys() == DOORS.keys()
    for verdict, code in outcomes.values():
        assert verdict in ("unscored", PROBLEM)
        assert code in codes
    assert outcomes["rest, problems"][0] == PROBLEM


async def test_without_a_fault_every_door_allows(policies: Path) -> None:
    async with running(policies=policies) as server:
        assert await through_all_doors(server) == dict.fromkeys(DOORS, ("allow", ""))


# The device


def fails(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


def gives(logit: float) -> Callable[..., Any]:
    scored = FakeBackend.score

    def score(backend: FakeBackend, groups: Sequence[Any]) -> Any:
        return [rows * 0 + logit for rows in scored(backend, groups)]

    return score


DEVICE_FAULTS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "out of memory": (fails(MemoryError()), ("out_of_memory",)),
    "a failing kernel": (fails(RuntimeError("boom")), ("internal",)),
    "NaN": (gives(math.nan), ("non_finite_score",)),
    "infinite": (gives(math.inf), ("non_finite_score",)),
    "too few rows": (lambda *_: [], ("internal",)),
}


@pytest.mark.parametrize("fault", DEVICE_FAULTS)
async def test_a_device_that_fails(policies: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    score, codes = DEVICE_FAULTS[fault]
    async with running(policies=policies) as server:
        monkeypatch.setattr(FakeBackend, "score", score)
        check(await through_all_doors(server), *codes)


class Lost(InlineWorker):
    """Is killed by the first batch after its probe."""

    probed = False

    async def score(self, groups: Sequence[GroupFrame]) -> Done:
        if self.probed:
            raise WorkerLost("crash")
        self.probed = True
        return await super().score(groups)


async def test_a_worker_that_is_killed_each_time(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_serving, "InlineWorker", Lost)
    async with running(policies=policies) as server:
        check(await through_all_doors(server), "worker_lost", "internal")


async def test_a_deadline_that_passes(policies: Path) -> None:
    async with running(policies=policies, fake_delay_ms=300) as server:
        check(await through_all_doors(server, headers={"x-deadline-ms": "20"}), "deadline")


async def test_a_client_that_leaves_gets_nothing_decided(policies: Path) -> None:
    async with running(policies=policies, fake_delay_ms=300) as server:
        for name, door in DOORS.items():
            asking = asyncio.ensure_future(door(server.rest, server.stub, Asked(name)))
            await until(lambda: server.engine.state()["requests_in_flight"] == 1)
            asking.cancel()
            await until(lambda: server.engine.state()["requests_in_flight"] == 0)
        metrics = (await server.admin.get("/metrics")).text
    assert 'medreward_verdicts_total{policy="strict",verdict="allow"} 0.0' in metrics


# Images


async def test_a_decoder_that_is_lost_each_time(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: object) -> None:
        raise DecoderLost

    async with running(policies=policies) as server:
        monkeypatch.setattr(Decoders, "decode", lost)
        check(await through_all_doors(server), "image_invalid", "internal", "worker_lost", "deadline")


@pytest.mark.parametrize("image", [b64(b"no image"), "no base64", b64(jpeg()[:200])])
async def test_an_image_that_is_none(policies: Path, image: str) -> None:
    async with running(policies=policies) as server:
        doors = await through_all_doors(server, image) if image != "no base64" else {}
        for name in ("rest", "litellm", "moderation"):
            doors[name] = await DOORS[name](server.rest, server.stub, Asked("a", image))
        for verdict, code in doors.values():
            assert (verdict in ("unscored", PROBLEM), code[:6]) == (True, "image_")


async def test_an_image_host_that_is_down(policies: Path) -> None:
    async with running(policies=policies, image_url_hosts="127.0.0.1:9", image_url_private=True) as server:
        check(await through_all_doors(server, "https://127.0.0.1:9/scan.jpeg"), "image_fetch_failed")


# The whole server


async def test_a_server_that_sleeps_drains_or_loads(policies: Path) -> None:
    async with running(policies=policies) as server:
        assert (await server.admin.post("/admin/sleep", json={"level": 1})).is_success
        check(await through_all_doors(server), "asleep")
        server.engine.drain()
        check(await through_all_doors(server), "not_ready")
    async with running(policies=policies, start=False) as server:
        check(await through_all_doors(server), "not_ready", "policy_unknown")


async def test_a_queue_that_is_full(policies: Path) -> None:
    async with running(policies=policies, fake_delay_ms=1000, queue_cost=10) as server:
        first = asyncio.ensure_future(server.rest.post("/score", json={"question": QUESTION, "response": "first"}))
        await until(lambda: server.engine.state()["cost_admitted"] != 0)
        check(await through_all_doors(server), "overloaded")
        assert (await first).status_code == 200


async def test_no_memory_for_requests(policies: Path) -> None:
    async with running(policies=policies, bodies_bytes=100) as server:
        check(await through_all_doors(server), "overloaded")


async def test_no_thread_to_spare(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(policies=policies, text_chars=100_000) as server:
        with monkeypatch.context() as exhausted, ThreadPoolExecutor(1) as pool:
            exhausted.setattr(asyncio.get_running_loop(), "_default_executor", pool)
            exhausted.setattr(threading.Thread, "start", fails(RuntimeError("can't start new thread")))
            check(await through_all_doors(server, b64(jpeg(77))), "overloaded")


@pytest.mark.parametrize(
    ("error", "code"), [(RequestError(Code.OVERLOADED, "disk full"), "overloaded"), (OSError(28, "full"), "internal")]
)
async def test_an_account_that_cannot_be_kept(policies: Path, error: Exception, code: str) -> None:
    class Full:
        async def note(self, screened: Screened) -> None:
            raise error

    async with running(policies=policies) as server:
        server.screening.accounts.append(Full())
        check(await through_all_doors(server), code)


# Real processes


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("victim")
    split = policy_text(threshold("good", "allow", 0.0), fingerprint=FAKE_MANIFEST.fingerprint)
    publish(folder / "policies", split)
    slow = ("--fake-delay-ms", "200", "--batch-cost", "200", "--score-cache-bytes", "0")
    with serving(folder, *slow, "--policies", "policies") as served:
        yield served


@pytest.mark.slow
async def test_a_lost_worker_process_changes_no_verdict(victim: Served) -> None:
    asked = [Asked(f"finding {n}") for n in range(40)]
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=victim.url, trust_env=False, timeout=120, limits=limits) as rest,
        grpc.aio.insecure_channel(f"127.0.0.1:{victim.grpc_port}") as channel,
    ):
        stub: Any = reward_pb2_grpc.RewardServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
        expected = await asyncio.gather(*(over_rest(rest, stub, each) for each in asked))
        assert {verdict for verdict, _ in expected} == {"allow", "review"}
        calls = [door(rest, stub, each) for door in (over_grpc, over_litellm, over_moderation) for each in asked]
        under_way = asyncio.gather(*calls)
        await until_outside(lambda: state(victim)["requests_in_flight"] >= 10)
        hurt = worker(victim)
        os.kill(hurt, signal.SIGKILL)
        outcomes = await under_way
        await until_outside(replaced(victim, hurt))
    for (verdict, _), (right, _) in zip(outcomes, expected * 3, strict=True):
        assert verdict in (right, "unscored")
