"""Who may come in, through every door."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry
from starlette.routing import Mount, Route

import pictures
from asking import Refusal, check_problem, over_grpc, over_rest, post, refusal_of, refused
from cases import ANSWER, QUESTION, SCAN, Body
from keyring import KeysFile, bearer
from medreward import logs
from medreward.api import admin, compat
from medreward.api.access import keyring as keyring_module
from medreward.api.access.hosts import Hosts, address_of, is_loopback
from medreward.api.access.keyring import Bucket, Caller, Keyring
from medreward.api.access.keys import Scope
from medreward.api.admin import create_admin_app
from medreward.api.page import routes as page
from medreward.api.rest import app as rest_app
from medreward.api.rest import decisions, rank, screen
from medreward.api.rest.app import create_app
from medreward.engine.engine import Engine
from medreward.errors import Code, RequestError
from medreward.metrics import Metrics
from medreward.proto import reward_pb2 as pb
from medreward.screening.screening import Screening
from medreward.types import Lane
from serving import LOOPBACK, Server, running, settings_for

pytestmark = pytest.mark.slow

TRIPLE: Body = {"question": QUESTION, "response": ANSWER}
WITH_IMAGE: Body = {"image": SCAN, **TRIPLE}
REFUSED = "the keys file is refused; the old keys stay"


@dataclass(frozen=True)
class Guarded:
    server: Server
    keys: KeysFile
    key: str
    admin_key: str
    metrics_key: str


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    keys = KeysFile(tmp_path_factory.mktemp("keys") / "keys.jsonl")
    key, all_of_admin, metrics = keys.new(), keys.new(scopes=[Scope.ADMIN]), keys.new(scopes=[Scope.METRICS])
    async with running(keys_file=keys.path, admin_host="0.0.0.0") as server:  # by the rules of that address
        yield Guarded(server, keys, key, all_of_admin, metrics)


@pytest.fixture
def keys(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.jsonl")


async def exchange(port: int, request: bytes) -> bytes:
    """Bytes as no client library would send them, and what comes back."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(request)
    try:
        async with asyncio.timeout(60):
            return await reader.read(65_536)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.005)


async def until_answered(server: Server, key: str, *, is_known: bool = True) -> None:
    async def is_so() -> bool:
        return ((await post(server, TRIPLE, bearer(key))).status_code != 401) == is_known

    await until(is_so)


async def until_logged(caplog: pytest.LogCaptureFixture, event: str, times: int) -> None:
    async def is_so() -> bool:
        return sum(record.getMessage() == event for record in caplog.records) >= times

    await until(is_so)


async def until_in_flight(server: Server, number: int) -> None:
    async def is_so() -> bool:
        return server.engine.state()["requests_in_flight"] == number

    await until(is_so)


# default deny


def routes_of_both_doors() -> Iterator[tuple[str, str, str]]:
    """What the apps themselves have, and what their routers bring: a new route is among them."""
    engine, keys = Engine(settings_for(), Metrics(CollectorRegistry())), Keyring(None)
    screening = Screening(engine)
    doors = {
        "rest": [
            *create_app(engine, keys, screening).routes,
            *rest_app.router.routes,
            *page.router.routes,
            *rank.router.routes,
            *screen.router.routes,
            *decisions.router.routes,
            *(route for router in compat.ROUTERS for route in router.routes),
        ],
        "admin": [*create_admin_app(engine, keys, screening).routes, *admin.router.routes],
    }
    for door, routes in doors.items():
        for route in routes:
            if isinstance(route, Mount):
                yield door, "GET", f"{route.path}/x"
            elif isinstance(route, Route):
                for method in sorted(route.methods or ()):
                    yield door, method, route.path


def test_the_routes_are_seen() -> None:
    paths = {path for _, _, path in routes_of_both_doors()}
    assert paths >= {
        "/score",
        "/v1/images/{sha256}",
        "/docs",
        "/openapi.json",
        "/metrics",
        "/admin/drain",
        "/livez",
        "/page/now",
        "/page/{name}",
        "/rm",
        "/v2",
    }


@pytest.mark.parametrize(("door", "method", "path"), list(routes_of_both_doors()))
async def test_every_route_but_health_and_the_page_needs_a_key(
    guarded: Guarded, door: str, method: str, path: str
) -> None:
    client = guarded.server.rest if door == "rest" else guarded.server.admin
    reply = await client.request(method, path)
    if (method, path) in {("GET", "/livez"), ("GET", "/readyz"), ("GET", "/")}:
        assert reply.status_code == 200
    else:
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"


async def test_routes_that_do_not_exist_need_a_key_too(guarded: Guarded) -> None:
    for client in (guarded.server.rest, guarded.server.admin):
        for path in ("/not/there", "/livez/x", "/readyzz", "/metrics/"):
            check_problem(await client.get(path), 401, "unauthenticated")
        check_problem(await client.options("*"), 401, "unauthenticated")
    check_problem(await guarded.server.rest.get("/not/there", headers=bearer(guarded.key)), 404, "not_found")


async def test_grpc_needs_a_key_but_for_health(guarded: Guarded) -> None:
    server = guarded.server
    health: Any = health_pb2_grpc.HealthStub(server.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    no_key = Refusal(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", "")
    assert await refused(server.stub.GetModel(pb.GetModelRequest())) == no_key
    assert await over_grpc(server, TRIPLE) == no_key
    assert await refused(server.stub.PutImage(pb.PutImageRequest(data=pictures.png()))) == no_key
    unknown: Any = server.channel.unary_unary("/no.such/Method")
    assert await refused(unknown(b"")) == no_key
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        async for _ in server.stub.ScoreStream():  # nothing is sent: the refusal waits for no message
            pass
    assert refusal_of(ended.value) == no_key


async def test_reflection_needs_a_key(guarded: Guarded) -> None:
    channel: Any = guarded.server.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await anext(aiter(stub.ServerReflectionInfo(iter(asked))))
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
    metadata = tuple(bearer(guarded.key).items())
    answer = await anext(aiter(stub.ServerReflectionInfo(iter(asked), metadata=metadata)))
    assert "medreward.v1.RewardService" in {service.name for service in answer.list_services_response.service}


async def test_with_its_key_a_caller_scores_through_both_doors(guarded: Guarded) -> None:
    by_rest = await over_rest(guarded.server, WITH_IMAGE, bearer(guarded.key))
    assert isinstance(by_rest, list)
    assert by_rest == await over_grpc(guarded.server, WITH_IMAGE, bearer(guarded.key))


async def test_scopes_open_their_routes_and_no_others(guarded: Guarded) -> None:
    server = guarded.server
    opened = {
        (name, path)
        for name, key in (("score", guarded.key), ("admin", guarded.admin_key), ("metrics", guarded.metrics_key))
        for client, path in ((server.rest, "/v1/model"), (server.admin, "/metrics"), (server.admin, "/admin/state"))
        if (await client.get(path, headers=bearer(key))).status_code == 200
    }
    assert opened == {
        ("score", "/v1/model"),
        ("admin", "/metrics"),
        ("admin", "/admin/state"),
        ("metrics", "/metrics"),
    }
    check_problem(await server.admin.get("/admin/state", headers=bearer(guarded.key)), 403, "forbidden")
    denied = await over_grpc(server, TRIPLE, bearer(guarded.metrics_key))
    assert denied == Refusal(grpc.StatusCode.PERMISSION_DENIED, "forbidden", "")


async def test_metrics_are_open_on_loopback_alone(guarded: Guarded, keys: KeysFile) -> None:
    assert (await guarded.server.admin.get("/metrics")).status_code == 401
    keys.new()
    async with running(keys_file=keys.path) as server:
        assert (await server.admin.get("/metrics")).status_code == 200
        assert (await server.admin.get("/admin/state")).status_code == 401


# wrong keys


def secret_of(key: str) -> str:
    return key.split("_", 2)[2]  # there may be more of them in it


def wrong_keys(key: str) -> dict[str, list[str]]:
    other = "mr_" + "0" * 16 + "_" + "A" * 43
    return {
        "no header": [],
        "empty": [""],
        "another scheme": [f"Basic {key}"],
        "no scheme": [key],
        "a prefix": [f"Bearer {key[:-1]}"],
        "the public part": [f"Bearer mr_{key.split('_')[1]}"],
        "one letter changed": [f"Bearer {key[:-2]}{'a' if key[-2] != 'a' else 'b'}{key[-1]}"],
        "something behind": [f"Bearer {key}x"],
        "two words": [f"Bearer {key} {key}"],
        "an unknown id": [f"Bearer {other}"],
        "two headers": [f"Bearer {key}", f"Bearer {key}"],
        "a right and a wrong header": [f"Bearer {key}", f"Bearer {other}"],
        "not ASCII": ["Bearer \xe9" + key],
        "1 MB": ["Bearer mr_" + "a" * 1_000_000],
    }


WRONG = list(wrong_keys("mr_" + "1" * 16 + "_" + "B" * 43))


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_key_is_401_and_one_line_without_it(
    guarded: Guarded, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    values = wrong_keys(guarded.key)[what]
    headers = b"".join(b"Authorization: " + value.encode("latin-1") + b"\r\n" for value in values)
    body = json.dumps(TRIPLE).encode()
    about = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    with caplog.at_level(logging.DEBUG, "medreward"):
        reply = await exchange(
            guarded.server.port, b"POST /score HTTP/1.1\r\n" + about.encode() + headers + b"\r\n" + body
        )
        await until_logged(caplog, "request", int(b"401" in reply[:20]))
    # What is too large for a header may be refused as such before anybody looks for a key in it.
    assert reply.split()[1:2] in ([[b"401"], [b"400"], [b"431"], []] if what == "1 MB" else [[b"401"]])
    lines = [logs.JsonFormatter().format(record) for record in caplog.records if record.name.startswith("medreward")]
    assert len(lines) == (1 if b"401" in reply[:20] else len(lines))
    assert secret_of(guarded.key)[:20].encode() not in reply + "".join(lines).encode()
    assert b"aaaaaaaa" not in reply + "".join(lines).encode()
    assert (await post(guarded.server, TRIPLE, bearer(guarded.key))).status_code == 200


@pytest.mark.parametrize("what", [what for what in WRONG if what not in ("not ASCII", "1 MB")])
async def test_grpc_refuses_wrong_keys_with_one_line(
    guarded: Guarded, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = tuple(("authorization", value) for value in wrong_keys(guarded.key)[what])
    with caplog.at_level(logging.INFO, "medreward"):
        refusal = await refused(guarded.server.stub.GetModel(pb.GetModelRequest(), metadata=metadata))
        await until_logged(caplog, "request", 1)
    assert refusal == Refusal(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", "")
    (line,) = [logs.JsonFormatter().format(record) for record in caplog.records if record.name == "medreward.access"]
    assert json.loads(line)["code"] == "UNAUTHENTICATED"
    assert secret_of(guarded.key)[:20] not in line


async def test_a_megabyte_of_key_over_grpc_ends_that_call_alone(guarded: Guarded) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await guarded.server.stub.GetModel(pb.GetModelRequest(), metadata=tuple(bearer("a" * 1_000_000).items()))
    assert isinstance(await over_grpc(guarded.server, TRIPLE, bearer(guarded.key)), list)


def test_an_unknown_id_and_a_wrong_form_cost_a_hash_and_a_comparison_too(
    keys: KeysFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys.new()
    ring = Keyring(keys.path)
    hashed = []

    def counted(salt: str, secret: str) -> str:
        hashed.append(secret)
        return hashlib.sha256(bytes.fromhex(salt) + secret.encode()).hexdigest()

    monkeypatch.setattr(keyring_module, "digest", counted)
    assert ring.identify([f"Bearer {key}"]).tenant == "a"
    for values in wrong_keys(key).values():
        hashed.clear()
        with pytest.raises(RequestError, match="a valid API key") as refusal:
            ring.identify(values)
        assert refusal.value.code is Code.UNAUTHENTICATED
        assert len(hashed) == 1


def test_the_file_keeps_no_key(keys: KeysFile) -> None:
    assert secret_of(keys.new()) not in keys.path.read_text()
    assert keys.path.stat().st_mode & 0o777 == 0o600


# targets and Host headers that mean one thing to a filter and another to a router

TARGETS = [
    b"http://localhost/livez/../v1/model",
    b"http://localhost/v1/model",
    b"http://livez/v1/model",
    b"//livez/../v1/model",
    b"//v1/model",
    b"/livez/../v1/model",
    b"/livez%2f..%2fv1/model",
    b"/%2e%2e/v1/model",
    b"/livez/%2e%2e/v1/model",
    b"/livez;/v1/model",
    b"/livez/",
    b"/LIVEZ",
    b"/%2flivez",
    b"/livez%00",
    b"/v1/model%00/livez",
    b"/v1/model#/livez",
    b"/v1/model?/livez",
    b"/%76%31/model",
    b"*",
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("host", [b"localhost", b"localhost/livez?", b"localhost/v1/x?", b"x\r\nHost: y"])
async def test_no_spelling_of_a_target_gets_around_the_key(guarded: Guarded, target: bytes, host: bytes) -> None:
    reply = await exchange(
        guarded.server.port, b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
    )
    assert reply.split()[1] in (b"400", b"401", b"404")
    assert b"medreward-mini" not in reply
    assert b"fingerprint" not in reply


async def test_what_is_spelt_otherwise_is_the_same_route_with_a_key(guarded: Guarded) -> None:
    request = f"Host: x\r\nConnection: close\r\nAuthorization: Bearer {guarded.key}\r\n\r\n".encode()
    for target, status in ((b"/%76%31/model", b"200"), (b"/livez/../v1/model", b"404"), (b"http://x/v1/model", b"200")):
        assert (await exchange(guarded.server.port, b"GET " + target + b" HTTP/1.1\r\n" + request)).split()[1] == status


# lanes


async def test_a_lane_that_the_key_may_not_use_is_403(guarded: Guarded) -> None:
    key = guarded.keys.new(lanes=[Lane.BULK])
    await until_answered(guarded.server, key)
    bulk_only = bearer(key)
    check_problem(await post(guarded.server, TRIPLE, bulk_only | {"x-lane": "interactive"}), 403, "forbidden", "X-Lane")
    denied = Refusal(grpc.StatusCode.PERMISSION_DENIED, "forbidden", "X-Lane")
    assert await over_grpc(guarded.server, TRIPLE, bulk_only | {"x-lane": "interactive"}) == denied
    message = pb.ScoreRequest(items=[pb.Item(question="q", responses=["r"])], lane="interactive")
    assert await refused(guarded.server.stub.Score(message, metadata=tuple(bulk_only.items()))) == denied
    call = guarded.server.stub.ScoreStream(iter([message]), metadata=tuple(bulk_only.items()))
    assert [result.error.code async for reply in call for result in reply.results] == ["forbidden"]


# quotas


@pytest.mark.parametrize(("lane", "status"), [("bulk", 503), ("interactive", 429)])
@pytest.mark.parametrize("quota", ["requests_per_second", "triples_per_second"])
async def test_over_its_quota_a_key_is_told_when_to_come_back(
    keys: KeysFile, quota: str, lane: str, status: int
) -> None:
    metadata = {"x-lane": lane} | bearer(keys.new(**{quota: 0.001}))  # type: ignore[arg-type]
    other = bearer(keys.new())
    async with running(keys_file=keys.path) as server:
        assert (await post(server, TRIPLE, metadata)).status_code == 200
        reply = await post(server, TRIPLE, metadata)
        check_problem(reply, status, "quota_exceeded")
        assert 900 <= int(reply.headers["retry-after"]) <= 1000
        refusal = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota_exceeded", "")
        assert await over_grpc(server, TRIPLE, metadata) == refusal
        message = pb.ScoreRequest(items=[pb.Item(question="q", responses=["r", "s"])])
        call = server.stub.ScoreStream(iter([message]), metadata=tuple(metadata.items()))
        codes = [result.error.code async for reply in call for result in reply.results]
        assert codes == ["quota_exceeded"] * 2
        assert (await post(server, TRIPLE, other)).status_code == 200


async def test_a_key_s_quotas_stand_among_its_limits(keys: KeysFile) -> None:
    bounded, free = bearer(keys.new(triples_per_second=7.5, in_flight=3)), bearer(keys.new())
    async with running(keys_file=keys.path) as server:
        limits = (await server.rest.get("/v1/limits", headers=bounded)).json()
        model = await server.stub.GetModel(pb.GetModelRequest(), metadata=tuple(bounded.items()))
        assert limits == dict(model.limits)
        assert (limits["triples_per_second"], limits["in_flight"]) == (7.5, 3)
        assert "in_flight" not in (await server.rest.get("/v1/limits", headers=free)).json()


async def test_requests_in_flight_are_bounded_over_both_doors_together(keys: KeysFile) -> None:
    metadata = bearer(keys.new(in_flight=2))
    async with running(keys_file=keys.path, fake_delay_ms=1000, score_cache_bytes=0) as server:
        await server.stub.GetModel(pb.GetModelRequest(), metadata=tuple(metadata.items()))  # connects
        await server.rest.get("/livez")
        first = [
            asyncio.create_task(over_rest(server, TRIPLE, metadata)),
            asyncio.create_task(over_grpc(server, TRIPLE, metadata)),
        ]
        await until_in_flight(server, 2)
        check_problem(await post(server, TRIPLE, metadata), 503, "quota_exceeded")
        assert isinstance(await over_grpc(server, TRIPLE, metadata), Refusal)
        assert all(isinstance(answer, list) for answer in await asyncio.gather(*first))
        assert (await post(server, TRIPLE, metadata)).status_code == 200


def test_a_quota_holds_over_time_and_lets_a_burst_through() -> None:
    now = 0.0
    bucket = Bucket(lambda: now)
    taken = 0
    while now < 100:
        taken += bucket.take(1, rate=2, burst=10) == 0
        now += 0.05
    assert 205 <= taken <= 212
    assert bucket.take(50, rate=2, burst=10) > 0
    now += 5
    assert bucket.take(50, rate=2, burst=10) == 0  # larger than any burst: when the bucket is full, and then in debt
    assert bucket.take(1, rate=2, burst=10) == pytest.approx(20.5)


# keys that come and go


async def test_a_key_ends_on_the_day_it_says(keys: KeysFile) -> None:
    over = keys.new(expires=datetime.now(UTC) - timedelta(seconds=1))
    on = keys.new(expires=datetime.now(UTC) + timedelta(days=1))
    async with running(keys_file=keys.path) as server:
        assert (await post(server, TRIPLE, bearer(over))).status_code == 401
        assert (await post(server, TRIPLE, bearer(on))).status_code == 200


async def test_a_broken_file_changes_nothing_and_is_said_once(
    keys: KeysFile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_module, "WATCH_SECONDS", 0.02)
    key = keys.new()
    whole = keys.path.read_text()
    async with running(keys_file=keys.path) as server:
        for broken in ('{"id": "', whole * 2, '{"id": 1}\n', whole.replace('"name"', '"nmae"')):
            caplog.clear()
            keys.path.write_text(broken)
            await until_logged(caplog, REFUSED, 1)
            assert (await post(server, TRIPLE, bearer(key))).status_code == 200
        caplog.clear()
        keys.path.unlink()
        await until_logged(caplog, REFUSED, 1)
        await asyncio.sleep(0.1)
        assert sum(record.getMessage() == REFUSED for record in caplog.records) == 1
        assert (await post(server, TRIPLE, bearer(key))).status_code == 200
        keys.path.write_text("# none left\n\n")
        await until_answered(server, key, is_known=False)
        keys.path.write_text(whole)
        await until_answered(server, key)


async def test_keys_are_rotated_and_revoked_under_load(keys: KeysFile) -> None:
    """The old key opens nothing within two seconds; what was in flight with it, and all else, is answered."""
    old, other = keys.new("a"), keys.new("b")
    loop = asyncio.get_running_loop()
    answers: list[tuple[str, float, int]] = []
    current, stopped = old, False
    async with running(keys_file=keys.path, fake_delay_ms=800, score_cache_bytes=0) as server:

        async def load(who: str) -> None:
            status = 200
            while not stopped and status == 200:
                key, began = {"rotating": current, "other": other}.get(who, old), loop.time()
                status = (await post(server, TRIPLE, bearer(key))).status_code
                answers.append((who, began, status))

        clients = [asyncio.create_task(load(who)) for who in ("rotating", "other", "still the old one")]
        await until_in_flight(server, len(clients))
        new = keys.new("a")
        await until_answered(server, new)
        current = new
        other_triple = {"question": QUESTION, "response": "in flight when its key is revoked"}
        flying = [asyncio.create_task(over_rest(server, other_triple, bearer(old))) for _ in range(2)]
        await until_in_flight(server, len(flying) + len(clients))
        revoked = loop.time()
        keys.revoke(old)
        assert all(isinstance(answer, list) for answer in await asyncio.gather(*flying))
        async with asyncio.timeout(60):
            await clients[2]
        stopped = True
        await asyncio.gather(*clients)
    assert {status for who, _, status in answers if who != "still the old one"} == {200}
    last = max(began for who, began, status in answers if who == "still the old one" and status == 200)
    assert 2 * keyring_module.WATCH_SECONDS < 2  # the second look takes it
    assert last - revoked < 10  # and what a busy machine adds
    assert {status for who, _, status in answers if who == "still the old one"} == {200, 401}


async def test_a_stream_that_outlives_its_key_scores_no_more(keys: KeysFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring_module, "WATCH_SECONDS", 0.02)
    key = keys.new()
    message = pb.ScoreRequest(items=[pb.Item(question="q", responses=["r"])])
    async with running(keys_file=keys.path) as server:
        stream = server.stub.ScoreStream(metadata=tuple(bearer(key).items()))
        await stream.write(message)
        assert (await stream.read()).results[0].HasField("scores")
        keys.revoke(key)
        await until_answered(server, key, is_known=False)
        await stream.write(message)
        assert (await stream.read()).results[0].error.code == "unauthenticated"
        await stream.done_writing()


def test_a_changed_key_keeps_what_it_has_used(keys: KeysFile) -> None:
    now = 0.0
    caller = Caller(None, lambda: now)
    key = keys.new(triples_per_second=1)
    caller.key = Keyring(keys.path).identify([f"Bearer {key}"]).key
    caller.charge(30)
    assert caller.key
    caller.key = msgspec.structs.replace(caller.key, triples_per_second=2.0)
    with pytest.raises(RequestError):
        caller.charge(1)
    now = 40.0
    caller.charge(1)


# tenants


async def test_nothing_of_a_tenant_is_seen_by_another(keys: KeysFile) -> None:
    a, b = bearer(keys.new("a")), bearer(keys.new("b"))
    image = pictures.png(77)
    digest = hashlib.sha256(image).hexdigest()
    stored: Body = {"image": {"sha256": digest}, **TRIPLE}

    async with running(keys_file=keys.path) as server:

        async def hits(cache: str) -> float:
            return sum(
                sample.value
                for family in server.engine.metrics.registry.collect()
                for sample in family.samples
                if sample.name == "medreward_cache_hits_total" and sample.labels == {"cache": cache}
            )

        async def cached(who: dict[str, str]) -> bool:
            (result,) = (await post(server, stored, who)).json()["results"]
            return bool(result["cached"])

        assert (await server.rest.put("/v1/images", content=image, headers=a)).status_code == 201
        check_problem(await post(server, stored, b), 404, "image_unknown", "/image")
        assert "image_unknown" in str(await over_grpc(server, stored, b))
        assert (await server.rest.delete(f"/v1/images/{digest}", headers=b)).status_code == 404
        assert not await cached(a)
        assert await cached(a)

        assert (await server.rest.put("/v1/images", content=image, headers=b)).status_code == 201  # new to it
        before = {cache: await hits(cache) for cache in ("scores", "pixels", "image_features", "prefixes")}
        assert not await cached(b)
        assert {cache: await hits(cache) for cache in before} == before
        assert await cached(b)

        assert (await server.rest.delete(f"/v1/images/{digest}", headers=a)).status_code == 204
        check_problem(await post(server, stored, a), 404, "image_unknown", "/image")
        assert (await post(server, stored, b)).status_code == 200
        assert isinstance(await over_grpc(server, stored, b), list)


async def test_over_grpc_tenants_are_as_far_apart(keys: KeysFile) -> None:
    a, b = (tuple(bearer(keys.new(tenant)).items()) for tenant in "ab")
    image = pictures.png(78)
    stored = pb.Image(sha256=hashlib.sha256(image).hexdigest())
    message = pb.ScoreRequest(items=[pb.Item(images=[stored], question=QUESTION, responses=[ANSWER])])
    async with running(keys_file=keys.path) as server:

        async def result(who: tuple[tuple[str, str], ...]) -> pb.Result:
            reply: pb.ScoreResponse = await server.stub.Score(message, metadata=who)
            return reply.results[0]

        await server.stub.PutImage(pb.PutImageRequest(data=image), metadata=a)
        assert [(await result(a)).cached for _ in range(2)] == [False, True]
        assert (await result(b)).error.code == "image_unknown"
        await server.stub.PutImage(pb.PutImageRequest(data=image), metadata=b)
        assert [(await result(b)).cached for _ in range(2)] == [False, True]


async def test_twins_of_two_tenants_at_the_same_time_are_scored_apart(keys: KeysFile) -> None:
    tenants = [bearer(keys.new("a")), bearer(keys.new("b"))]
    async with running(keys_file=keys.path, fake_delay_ms=200) as server:
        await over_rest(server, {"question": QUESTION, "response": "keeps the device busy"}, tenants[0])
        calls = [asyncio.create_task(post(server, WITH_IMAGE, who)) for who in tenants * 4]
        answers = [reply.json()["results"][0] for reply in await asyncio.gather(*calls)]
        items = server.engine.metrics.registry.get_sample_value("medreward_batch_items_sum")
    assert len({json.dumps(answer["logits"]) for answer in answers}) == 1
    assert items == 1 + 2  # one flight for each tenant


# Host headers


@pytest.mark.parametrize(
    ("names", "only_loopback", "host", "answered"),
    [
        ("", True, "localhost", True),
        ("", True, "LocalHost.:8000", True),
        ("", True, "app.localhost", True),
        ("", True, "127.0.0.1:8000", True),
        ("", True, "[::1]:8000", True),
        ("", True, "10.1.2.3", True),
        ("", True, "evil.example", False),
        ("", True, "localhost.evil.example", False),
        ("", True, "127.0.0.1.evil.example", False),
        ("", True, "localhost/v1/x?", False),
        ("", True, "user@localhost", False),
        ("", True, "", False),
        ("", False, "anything.example", True),
        ("", False, "localhost/v1/x?", False),
        ("rm.example, RM2.example", True, "rm2.example:443", True),
        ("rm.example", True, "localhost", False),
        ("*", True, "evil.example", True),
    ],
)
def test_hosts_that_a_door_answers_to(names: str, only_loopback: bool, host: str, answered: bool) -> None:
    hosts = Hosts(names, only_loopback)
    with nullcontext() if answered else pytest.raises(RequestError, match="host name"):
        hosts.check([host])


async def test_a_page_whose_name_points_at_loopback_is_refused(fake: Server) -> None:
    for client in (fake.rest, fake.admin):
        for path in ("/v1/limits", "/metrics", "/docs"):
            check_problem(await client.get(path, headers={"Host": "evil.example"}), 400, "host_refused")
        assert (await client.get("/v1/limits", headers={"Host": "localhost"})).status_code in (200, 404)
    assert (await fake.rest.get("/livez", headers={"Host": "evil.example"})).status_code == 200


async def test_two_host_headers_are_refused(fake: Server) -> None:
    reply = await exchange(fake.port, b"GET /v1/limits HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")
    assert reply.split()[1] == b"400"


# addresses


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("0", False),
        ("", False),
        ("::", False),
        ("::ffff:0.0.0.0", False),
        ("10.0.0.1", False),
        ("169.254.1.1", False),
    ],
)
def test_which_addresses_others_can_reach(host: str, loopback: bool) -> None:
    assert is_loopback(address_of(host)) is loopback
