"""The shadow: what it counts and records, that it ends, and that nothing it does reaches an answer."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cases import b64
from medreward.backends.fake import FAKE_MANIFEST
from medreward.errors import ConfigurationError
from medreward.screening import second_server
from medreward.screening.shadow import SecondPolicy, Until
from pictures import jpeg
from policies import policy_text, publish, threshold
from serving import LOOPBACK, Server, running
from waiting import until

FINGERPRINT = FAKE_MANIFEST.fingerprint
CANARY = "Zoe-Canary-19610417"
ITEM = {"question": f"What has {CANARY}?", "responses": [f"{CANARY} is well.", "A fracture."]}

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A folder of two versions of a policy: the current one allows all, the other one blocks all."""
    folder = tmp_path / "policies"
    publish(folder, policy_text(threshold("all", "allow", -99.0), fingerprint=FINGERPRINT))
    publish(folder, policy_text(threshold("all", "block", -99.0), fingerprint=FINGERPRINT, version="2"), version="2")
    (folder / "strict" / "current").write_text("1\n")
    return folder


async def screened(server: Server, times: int = 1, **item: Any) -> list[str]:
    """Returns the verdicts of the last of some requests."""
    for _ in range(times):
        reply = await server.rest.post("/v1/screen", json={"items": [{**ITEM, **item}]})
        assert reply.status_code == 200
    return [result["verdict"] for result in reply.json()["results"]]


async def count(server: Server, series: str) -> float:
    """Returns the value of a series of the shadow's metrics."""
    lines = (await server.admin.get("/metrics")).text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"medreward_shadow_{series} ")))


async def state(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = (await server.admin.get("/admin/state")).json()["shadow"]
    return found


async def test_second_policy_is_counted_and_recorded_and_changes_no_answer(policies: Path, tmp_path: Path) -> None:
    file = tmp_path / "shadow.jsonl"
    given: dict[str, Any] = {"shadow_policy": "strict/2", "shadow_share": 1, "shadow_file": file}
    async with running(policies=policies, shadow_until="1000", **given) as server:
        assert await count(server, 'agreement_total{outcome="allow_block"}') == 0
        assert await count(server, 'agreement_total{outcome="unscored_unscored"}') == 0
        assert await screened(server) == ["allow", "allow"]
        assert await screened(server, question="") == ["unscored", "unscored"]
        assert await count(server, 'agreement_total{outcome="allow_block"}') == 2
        assert await count(server, 'agreement_total{outcome="unscored_unscored"}') == 2
        about = await state(server)
    assert (about["of"], about["decisions"], about["ended"]) == ("policy strict 2", 2, False)
    assert about["outcomes"] == {"allow_block": 2, "unscored_unscored": 2}
    assert CANARY not in file.read_text()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["served"]["verdict"], line["shadow"]["verdict"]) for line in lines[:2]] == [("allow", "block")] * 2
    assert (lines[0]["served"]["version"], lines[0]["shadow"]["version"]) == ("1", "2")


async def test_share_is_about_what_is_said(policies: Path) -> None:
    async with running(policies=policies, shadow_policy="strict/2", shadow_share=0.3, shadow_until="1000") as server:
        await screened(server, 100)
        assert 15 < (await state(server))["decisions"] < 45  # 30 on average, 4.6 apart


async def test_it_ends_after_a_number_of_decisions(policies: Path) -> None:
    async with running(policies=policies, shadow_policy="strict/2", shadow_share=1, shadow_until="3") as server:
        await screened(server, 5)
        about = await state(server)
        assert (about["decisions"], about["ended"]) == (3, True)


async def test_a_day_that_is_over_ends_it(policies: Path) -> None:
    async with running(policies=policies, shadow_policy="strict", shadow_share=1, shadow_until="2026-01-31") as server:
        await screened(server)
        about = await state(server)
        assert (about["decisions"], about["ended"]) == (0, True)
    assert Until.of("2026-01-31").moment == datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shadow_policy": "strict/2"}, "a shadow needs an end"),
        ({"shadow_policy": "strict/2", "shadow_until": "soon"}, "neither a date"),
        ({"shadow_policy": "strict/2", "shadow_until": "0"}, "neither a date"),
        ({"shadow_policy": "strict/3", "shadow_until": "9"}, "there is no policy 'strict/3'"),
        ({"shadow_url": "ftp://other", "shadow_until": "9"}, "write it as https://host:port"),
        (
            {"shadow_url": "http://127.0.0.1:9", "shadow_until": "9", "shadow_key_file": "none"},
            "cannot be read as a key",
        ),
    ],
)
async def test_a_shadow_that_cannot_be_kept_stops_the_start(
    policies: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        async with running(policies=policies, **given):
            pass


async def test_a_second_policy_that_fails_does_not_reach_the_request(
    policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("what the patient said")

    monkeypatch.setattr(SecondPolicy, "take", broken)
    async with running(policies=policies, shadow_policy="strict/2", shadow_share=1, shadow_until="9") as server:
        assert await screened(server) == ["allow", "allow"]


# another server


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[str]:
    """A server that reads requests and answers each as it is told; gives its address."""

    talking: set[asyncio.Task[Any] | None] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.add(asyncio.current_task())
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await answer(head + await reader.readexactly(length), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, LOOPBACK, 0, limit=2**20)
    try:
        yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*filter(None, talking))


async def test_second_server_is_sent_what_was_asked_in_its_bulk_lane(policies: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    publish(other, policy_text(threshold("none", "allow", 99.0), "mild", fingerprint=FINGERPRINT), "mild")
    key = tmp_path / "key"
    key.write_text("mr_key\n")
    file = tmp_path / "shadow.jsonl"
    async with running(policies=other) as second:
        url = f"http://{LOOPBACK}:{second.port}"
        given: dict[str, Any] = {"shadow_share": 1, "shadow_file": file, "shadow_key_file": key}
        async with running(policies=policies, shadow_url=url, shadow_until="9", **given) as server:
            await screened(server, image=b64(jpeg(1)))
            stored = (await server.rest.put("/v1/images", content=jpeg(2))).json()["sha256"]
            await screened(server, image={"sha256": stored})
            await until(lambda: len(file.read_text().splitlines()) == 4)
            assert await count(server, 'agreement_total{outcome="allow_review"}') == 4
        lanes = (await second.admin.get("/metrics")).text
        assert 'medreward_requests_total{code="200",lane="bulk",route="/v1/screen"} 2.0' in lanes
        assert 'medreward_flags_total{flag="no_image"} 0.0' in lanes
    line = json.loads(file.read_text().splitlines()[0])
    assert (line["shadow"]["name"], line["shadow"]["verdict"]) == ("mild", "review")
    assert CANARY not in file.read_text()


async def test_image_that_is_no_bytes_here_is_not_sent_on(policies: Path) -> None:
    asked = []

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(request)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with (
        listening(answer) as url,
        running(policies=policies, shadow_url=url, shadow_until="9", shadow_share=1) as server,
    ):
        await screened(server, image={"url": "https://images.example/1.png"})
        await until(lambda: server.engine.metrics.shadow_dropped.labels("image")._value.get() == 1)
        assert asked == []


async def test_wrong_or_no_answers_are_counted_and_change_nothing(
    policies: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bodies = iter([b"{}", b"not json", b'{"results": [], "policy": {}, "model": {}}'])

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        body = next(bodies, None)
        if body is None:
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async with (
        listening(answer) as url,
        running(policies=policies, shadow_url=url, shadow_until="99", shadow_share=1) as server,
    ):
        assert await screened(server, 5) == ["allow", "allow"]
        await until(lambda: server.engine.metrics.shadow_dropped.labels("failed")._value.get() == 5)
        assert (await state(server))["outcomes"] == {}
    assert CANARY not in caplog.text


async def test_nothing_is_sent_to_a_proxy_or_where_a_redirect_leads(
    policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = []

    async def other(request: bytes, writer: asyncio.StreamWriter) -> None:
        elsewhere.append(request)

    async with listening(other) as there:

        async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 307 Go\r\nLocation: %s/v1/screen\r\nContent-Length: 0\r\n\r\n" % there.encode())

        monkeypatch.setenv("HTTP_PROXY", there)
        monkeypatch.setenv("NO_PROXY", "")
        async with (
            listening(answer) as url,
            running(policies=policies, shadow_url=url, shadow_until="9", shadow_share=1) as server,
        ):
            await screened(server)
            await until(lambda: server.engine.metrics.shadow_dropped.labels("failed")._value.get() == 1)
    assert elsewhere == []


async def test_a_server_that_is_down_is_counted(policies: Path) -> None:
    async with running(policies=policies, shadow_url="http://127.0.0.1:9", shadow_until="9", shadow_share=1) as server:
        assert await screened(server) == ["allow", "allow"]
        await until(lambda: server.engine.metrics.shadow_dropped.labels("failed")._value.get() == 1)


async def test_a_server_that_hangs_delays_nothing_and_what_is_too_much_is_dropped(
    policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_server, "WAITING", 4)

    async def hang(request: bytes, writer: asyncio.StreamWriter) -> None:
        """Never answers; its connection ends when the other side leaves."""

    async with (
        listening(hang) as url,
        running(policies=policies, shadow_url=url, shadow_until="99", shadow_share=1) as server,
    ):
        started = time.perf_counter()
        await screened(server, 20)
        assert time.perf_counter() - started < second_server.SECONDS / 2
        await until(lambda: server.engine.metrics.shadow_dropped.labels("busy")._value.get() >= 20 - 4 - 2)


async def test_bytes_that_wait_are_bounded(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_server, "HELD_BYTES", 100_000)

    async def hang(request: bytes, writer: asyncio.StreamWriter) -> None:
        """Never answers; its connection ends when the other side leaves."""

    async with (
        listening(hang) as url,
        running(policies=policies, shadow_url=url, shadow_until="99", shadow_share=1) as server,
    ):
        await screened(server, 2, responses=["x" * 60_000])
        assert server.engine.metrics.shadow_dropped.labels("busy")._value.get() == 1
