"""A judge that is a real, tiny, random vision-language model."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import pictures
from bench.here import medreward_apart as medreward
from bench.sets import some_cases, write_set
from bench.test_runner import lines
from bench.vlm_server import Judge, app
from commands import CLEAN
from serving import listening
from tiny_vlm import write_tiny
from waiting import until

pytestmark = pytest.mark.slow

#: Uvicorn writes it when its socket listens; "Application startup complete" comes before that.
LISTENING = re.compile(r"Uvicorn running on (http://\S+)")


async def judged_four(tmp_path: Path, endpoint: str, model: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and predictions of four cases."""
    cases = [replace(case, image=pictures.png(n)) for n, case in enumerate(some_cases(4))]
    data, out = write_set(tmp_path / "set", cases), tmp_path / "run"
    flags = ("--judge", f"{endpoint}/v1", "--judge-model", model, "--max-tokens", "8", "--json")
    done = await medreward("bench", "run", "--data", data, "--out", out, *flags)
    assert done.code == 0, done
    totals = json.loads((out / "run.json").read_text())["totals"]
    assert (totals["calls"], totals["calls_without_usage"]) == (8, 0)
    assert totals["prompt_tokens"] > 8 * 100
    return json.loads(done.out), lines(out / "predictions.jsonl")


@asynccontextmanager
async def judging() -> AsyncIterator[str]:
    """The URL of bench/vlm_server.py in this process."""
    sock = listening()
    server = uvicorn.Server(uvicorn.Config(app(Judge()), log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve([sock]))
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    await serving


async def test_a_vision_language_model_held_to_the_shape_of_a_verdict(tmp_path: Path) -> None:
    async with judging() as url:
        summary, rows = await judged_four(tmp_path, url, "tiny")
    assert summary["statuses"] == {"ok": 4}
    assert {choice for row in rows for choice in row["choices"].values()} <= {"A", "B", "tie"}
    assert summary["judge"]["unreadable"] == 0


@contextmanager
def transformers_serve(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", "0"]
    with log.open("w") as stderr:
        server = subprocess.Popen(
            [*command, "--device", "cpu"], stdout=stderr, stderr=stderr, env=CLEAN | {"HF_HUB_OFFLINE": "1"}
        )
    try:
        yield server
    finally:
        server.kill()
        server.wait()


async def test_a_vision_language_model_behind_transformers_own_server(tmp_path: Path) -> None:
    """It says what it likes, and none of that is a vote."""
    folder, log = tmp_path / "tiny", tmp_path / "log"
    write_tiny(folder)
    with transformers_serve(log) as server:
        await until(lambda: bool(LISTENING.search(log.read_text())) or server.poll() is not None, 300)
        url = LISTENING.search(log.read_text())
        assert url, log.read_text()
        summary, rows = await judged_four(tmp_path, url[1], str(folder))
    assert summary["statuses"] == {"judge_unparseable": 4}
    assert all(reply["text"] for row in rows for reply in row["replies"])
