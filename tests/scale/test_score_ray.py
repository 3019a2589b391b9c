"""`medreward score-file --ray` on a real cluster: killed and started again, it gives what score-file gives."""

import json
import os
import signal
import subprocess
import time
from base64 import b64encode
from pathlib import Path

import pytest

from commands import CLEAN, MEDREWARD
from pictures import png
from scale.conftest import ENVIRONMENT, PYTHON, Ray

pytestmark = pytest.mark.ray

ROWS = 40


def test_killed_and_started_again_it_gives_what_score_file_gives(cluster: Ray, tmp_path: Path) -> None:
    images = [b64encode(png(n)).decode() for n in range(5)]
    rows = [{"id": n, "image": images[n // 8], "question": "Why?", "response": f"Reading {n}."} for n in range(ROWS)]
    rows[17]["image"] = "gone.png"
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    flags = ["--model", "fake", "--concurrency", "2"]
    here = [MEDREWARD, "score-file", "in.jsonl", "here.jsonl", *flags]
    assert subprocess.run(here, cwd=tmp_path, env=CLEAN, check=False, capture_output=True).returncode == 1

    address = cluster.call("address")
    more = ["--ray", address, "--ray-actors", "2", "--ray-batch-rows", "4", "--json"]
    command = [str(PYTHON), "-m", "medreward", "score-file", "in.jsonl", "out.jsonl", *flags, *more]
    env = CLEAN | ENVIRONMENT | {"MEDREWARD_FAKE_DELAY_MS": "300", "MEDREWARD_THREADS": "1", "MEDREWARD_DECODERS": "1"}
    parts = tmp_path / "out.jsonl.parts"
    with subprocess.Popen(command, cwd=tmp_path, env=env) as first:
        while not [*parts.rglob("*.jsonl")]:
            assert first.poll() is None
            time.sleep(0.02)
        os.kill(first.pid, signal.SIGKILL)
    assert not (tmp_path / "out.jsonl").exists()
    assert len([*parts.rglob("*.jsonl")]) < ROWS // 4

    second = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True)
    assert second.returncode == 1, second.stderr  # a row failed
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    summary = json.loads(second.stdout)
    assert (summary["rows"], summary["failed"], summary["errors"]) == (ROWS, 1, {"image_fetch_failed": 1})
    assert not parts.exists()
