"""What the audit log holds when the server is killed, when a second one wants it, and when the disk is full."""

import asyncio
import resource
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from audits import decision, opened, read_entries
from commands import Served, serving
from faults.outside import metric
from medreward.backends.fake import FAKE_MANIFEST
from medreward.errors import ConfigurationError
from medreward.screening.audit.files import files_of
from medreward.screening.audit.key import read_key
from medreward.screening.audit.verify import verify
from policies import policy_text, publish, threshold

pytestmark = pytest.mark.slow

ROOM = 48 * 1024


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    rules = threshold("all", "allow", -99.0)
    publish(tmp_path / "policies", policy_text(rules, fingerprint=FAKE_MANIFEST.fingerprint))
    return ["--isolation", "inline", "--policies", "policies", "--audit", "audit.jsonl"]


async def screen_until_lost(served: Served, after: int, answered: set[str]) -> None:
    """Screens over eight connections, and kills the server when so many were answered. Adds the ids to `answered`."""

    async def one(client: httpx.AsyncClient) -> None:
        while True:
            try:
                reply = await client.post("/v1/screen", json={"question": "q?", "response": f"{len(answered)}"})
            except httpx.TransportError:
                return
            answered.add(reply.json()["decision_id"])
            if len(answered) >= after and served.process.poll() is None:
                served.process.send_signal(signal.SIGKILL)

    async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=60) as client:
        await asyncio.gather(*(one(client) for _ in range(8)))


async def test_a_server_killed_in_mid_write_has_lost_no_decision_that_was_answered(
    tmp_path: Path, flags: list[str]
) -> None:
    answered: set[str] = set()
    file = tmp_path / "audit.jsonl"
    with serving(tmp_path, *flags, "--audit-bytes", "20000") as served:  # so that files begin meanwhile
        await screen_until_lost(served, 300, answered)
    with file.open("ab") as end:
        end.write(b'{"seq":')  # what a kill leaves that comes between the bytes of a line
    key = read_key(tmp_path / "audit.jsonl.key")
    with opened(file, key=key) as log:  # as the next server does
        log.append([decision(1)])
    assert len(answered) >= 300
    assert answered <= {entry.get("decision_id") for entry in read_entries(*files_of(file))}
    found = verify(files_of(file), key.secret)
    assert (found.problems, found.torn) == ([], 1)
    assert found.files > 10


def ask(client: httpx.Client, route: str = "/v1/screen") -> dict[str, Any]:
    answer: dict[str, Any] = client.post(route, json={"question": "q?", "response": "r"}).json()
    return answer


def test_a_full_disk_refuses_decisions_until_there_is_room_and_no_second_server_starts(
    tmp_path: Path, flags: list[str]
) -> None:
    file = tmp_path / "audit.jsonl"
    with (
        serving(tmp_path, *flags) as served,
        httpx.Client(base_url=served.url, trust_env=False, timeout=60) as client,
    ):
        _, hard = resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
        answers = [ask(client) for _ in range(ROOM // 1024)]
        refused = [answer for answer in answers if "decision_id" not in answer]
        assert {answer["code"] for answer in refused} == {"audit_failed"}
        assert ask(client, "/v1/score")["results"][0]["status"] == "ok"
        assert metric(served, "medreward_audit_refused_total") == len(refused)
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        answers.append(ask(client))
        assert "decision_id" in answers[-1]
        with pytest.raises(ConfigurationError, match="another process has it open"):
            opened(file, key=read_key(tmp_path / "audit.jsonl.key"))
    logged = {entry.get("decision_id") for entry in read_entries(file)} - {None}
    assert logged == {answer["decision_id"] for answer in answers if "decision_id" in answer}
    assert verify([file]).ok
