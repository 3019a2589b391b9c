"""One replica, without Ray around it: what it answers, what it takes over, and what it refuses."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import pytest

from keyring import KeysFile
from medreward.errors import ConfigurationError
from medreward.proto import reward_pb2 as pb
from medreward.scale.fleet import Fleet, Member
from medreward.scale.policy import COST
from medreward.scale.replica import Replica
from medreward.scale.rpc import REPLIES
from sisters import sister
from waiting import until

QUESTION = "Is there a fracture?"
BODY = {"image": None, "question": QUESTION, "response": "No."}
SETTINGS = {"isolation": "inline", "admin_port": 0, "drift": "off", "threads": 1}


@pytest.fixture(autouse=True)
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """The fleet, which Ray would keep in an actor. Each of these replicas is called by its admin port."""
    fleet = Fleet()
    everyone: set[str] = set()

    async def join_fleet(member_of: Callable[[str], Member]) -> str | None:
        member = member_of("")
        member = Member(member.metrics, member.release, member.fingerprint, member.metrics)
        everyone.add(member.replica)
        return fleet.join(member, everyone)

    monkeypatch.setitem(sys.modules, "medreward.scale.ray_fleet", SimpleNamespace(join_fleet=join_fleet))
    monkeypatch.setattr("medreward.logs.configure", lambda level: None)
    return fleet


@asynccontextmanager
async def replica(release: dict[str, Any], **settings: Any) -> AsyncIterator[tuple[Replica, httpx.AsyncClient]]:
    one = Replica({**SETTINGS, **settings})
    try:
        await one.reconfigure(release)
        app = one.__serve_build_asgi_app__()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            yield one, client
    finally:
        await one.close()


class Call:
    """What Ray passes to a replica of a gRPC call."""

    def __init__(self, *metadata: tuple[str, str], peer: str = "ipv4:127.0.0.1:5000") -> None:
        self.sent = [*metadata]
        self._peer = peer
        self.code: grpc.StatusCode | None = None
        self.trailing: dict[str, str] = {}

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self.sent

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        assert details

    def set_trailing_metadata(self, metadata: list[tuple[str, str]]) -> None:
        self.trailing = dict(metadata)


async def test_it_answers_both_doors_alike_and_leaves_the_request_id_to_rays_proxy() -> None:
    async with replica({"model": "fake"}) as (one, client):
        reply = await client.post("/score", json=BODY)
        assert reply.status_code == 200
        assert "x-request-id" not in reply.headers
        call = Call()
        asked = pb.ScoreRequest(items=[pb.Item(question=QUESTION, responses=["No."])])
        answer = await one.Score(asked, call)
        assert answer.results[0].reward == reply.json()["results"][0]["reward"]
        assert call.code is None

        async def messages() -> AsyncIterator[pb.ScoreRequest]:
            yield asked

        streamed = [reply async for reply in one.ScoreStream(messages(), Call())]
        assert streamed[0].results[0].reward == answer.results[0].reward
        assert one.record_autoscaling_stats() == {COST: 0}
        await one.check_health()


def test_every_method_of_the_grpc_service_has_its_place_in_a_replica() -> None:
    methods = {
        method.name: method.output_type.name for method in pb.DESCRIPTOR.services_by_name["RewardService"].methods
    }
    assert methods == {name: reply.DESCRIPTOR.name for name, reply in REPLIES.items()}
    assert all(callable(getattr(Replica, name)) for name in methods)


async def test_a_refused_call_has_the_status_and_metadata_of_the_grpc_door(tmp_path: Path) -> None:
    keys = KeysFile(tmp_path / "keys.json")
    key = keys.new()
    async with replica({"model": "fake"}, keys_file=str(keys.path)) as (one, client):
        assert (await client.post("/score", json=BODY)).status_code == 401
        call = Call()
        assert await one.GetModel(pb.GetModelRequest(), call) == pb.Model()
        assert call.code is grpc.StatusCode.UNAUTHENTICATED
        assert call.trailing["x-error-code"] == "unauthenticated"
        call = Call(("authorization", f"Bearer {key}"))
        assert (await one.GetModel(pb.GetModelRequest(), call)).ref.name == "fake"
        assert await one.Score(pb.ScoreRequest(), call) == pb.ScoreResponse()
        assert call.trailing["x-error-code"] == "invalid_field"


async def test_a_request_that_ray_cancels_counts_as_one_whose_client_left() -> None:
    async with replica({"model": "fake"}, fake_delay_ms=1000) as (one, client):
        asking = asyncio.create_task(client.post("/score", json=BODY))
        await until(lambda: bool(one.record_autoscaling_stats()[COST]))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        registry = one._engine.metrics.registry
        labels = {"route": "/score", "lane": "bulk", "code": "499"}
        assert registry.get_sample_value("medreward_requests_total", labels) == 1


async def test_without_keys_other_machines_are_refused_at_both_doors() -> None:
    async with replica({"model": "fake"}) as (one, _):
        app = one.__serve_build_asgi_app__()
        far = httpx.ASGITransport(app, client=("192.0.2.7", 5000))
        async with httpx.AsyncClient(transport=far, base_url="http://127.0.0.1") as stranger:
            reply = await stranger.post("/score", json=BODY)
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden")
        for peer in ("ipv4:192.0.2.7:5000", "ipv6:%5B2001:db8::7%5D:5000"):
            call = Call(peer=peer)
            assert await one.GetModel(pb.GetModelRequest(), call) == pb.Model()
            assert call.code is grpc.StatusCode.PERMISSION_DENIED
        assert (await one.GetModel(pb.GetModelRequest(), Call(peer="ipv6:%5B::1%5D:5000"))).ref.name == "fake"


async def test_another_release_is_taken_over_in_place_and_pinned_runs_keep_the_old_one(tmp_path: Path) -> None:
    old, new = (str(sister(tmp_path / name, median)) for name, median in (("old", 1.0), ("new", 2.0)))
    async with replica({"model": old}, swap_grace_seconds=60) as (one, client):
        before = (await client.post("/score", json=BODY)).json()
        await one.reconfigure({"model": new})
        after = (await client.post("/score", json=BODY)).json()
        pin = {"X-Model-Fingerprint": before["model"]["fingerprint"]}
        pinned = (await client.post("/score", json=BODY, headers=pin)).json()
    assert after["model"]["fingerprint"] != before["model"]["fingerprint"]
    assert pinned["model"] == before["model"]
    assert pinned["results"][0]["scores"] == before["results"][0]["scores"]


async def test_a_model_that_is_not_the_releases_or_not_its_siblings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has the fingerprint sha256:.*, not sha256:another"):
        async with replica({"model": "fake", "fingerprint": "sha256:another"}):
            pass
    # Two nodes have other files in the same folder.
    (tmp_path / "served").symlink_to(sister(tmp_path / "one", 1.0))
    async with replica({"model": str(tmp_path / "served")}) as (one, _):
        (tmp_path / "served").unlink()
        (tmp_path / "served").symlink_to(sister(tmp_path / "two", 2.0))
        with pytest.raises(ConfigurationError, match="give every node the same files"):
            async with replica({"model": str(tmp_path / "served")}):
                pass
        await one.check_health()


async def test_a_replica_that_takes_no_requests_is_not_healthy() -> None:
    async with replica({"model": "fake"}) as (one, client):
        one._engine.drain()
        with pytest.raises(RuntimeError, match="not ready: draining"):
            await one.check_health()
        assert (await client.get("/readyz")).status_code == 503
