"""What the audit log holds when the server is killed, when a second one wants it, and when the disk is full."""

import asyncio
import json
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from audits import read_entries
from commands import ANY_PORTS, CLEAN, MEDREWARD, Served, serving
from faults.outside import metric
from medreward.backends.fake import FAKE_MANIFEST
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
    small = ["--audit-bytes", "20000"]  # so that files begin meanwhile
    with serving(tmp_path, *flags, *small) as served:
        await screen_until_lost(served, 300, answered)
    with file.open("ab") as end:
        end.write(b'{"seq":')  # what a kill leaves that comes between the bytes of a line
    with serving(tmp_path, *flags, *small) as served:
        await screen_until_lost(served, 320, answered)
    assert len(answered) >= 320
    logged = {entry.get("decision_id") for entry in read_entries(*files_of(file))}
    assert answered <= logged
    found = verify(files_of(file), read_key(tmp_path / "audit.jsonl.key").secret)
    assert (found.problems, found.torn) == ([], 1)


def ask(served: Served, route: str = "/v1/screen") -> dict[str, Any]:
    body = {"question": "q?", "response": "r"}
    answer: dict[str, Any] = httpx.post(f"{served.url}{route}", json=body, timeout=60).json()
    return answer


def test_a_full_disk_and_a_second_server(tmp_path: Path, flags: list[str]) -> None:
    """Decisions are refused while the disk is full, and scores are not; a second server does not start."""
    with serving(tmp_path, *flags) as served:
        _, hard = resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
        answers = [ask(served) for _ in range(ROOM // 1024)]
        refused = [answer for answer in answers if "decision_id" not in answer]
        assert {answer["code"] for answer in refused} == {"audit_failed"}
        assert ask(served, "/v1/score")["results"][0]["status"] == "ok"
        assert metric(served, "medreward_audit_refused_total") == len(refused)
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        answers.append(ask(served))
        assert "decision_id" in answers[-1]
        command = [MEDREWARD, "serve", "--model", "fake", *ANY_PORTS, *flags]
        second = subprocess.run(
            command, capture_output=True, text=True, env=CLEAN, cwd=tmp_path, timeout=60, check=False
        )
        assert second.returncode == 2
        assert "another process has it open" in json.loads(second.stderr)["event"]
    logged = {entry.get("decision_id") for entry in read_entries(tmp_path / "audit.jsonl")} - {None}
    assert logged == {answer["decision_id"] for answer in answers if "decision_id" in answer}
    assert verify([tmp_path / "audit.jsonl"]).ok
