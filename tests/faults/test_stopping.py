"""SIGTERM, in every stage of a server's life; and no child outlives it, however it ends."""

import asyncio
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from commands import ANY_PORTS, CLEAN, MEDREWARD, serving
from faults.outside import (
    adopting_orphans,
    ask,
    children,
    decoders,
    ended_by,
    is_alive,
    send,
    state,
    triples,
    until,
    worker,
)

pytestmark = pytest.mark.slow

CALLS = 60
LONG_BATCH_MS = "6000"  # a probe takes it too, before the server is ready


async def test_sigterm_under_load_loses_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, "--fake-delay-ms", "3000") as served:
        calls = asyncio.create_task(ask(served.url, triples(CALLS)))
        await until(lambda: state(served)["requests_in_flight"] == CALLS)
        family = children(served)
        served.process.send_signal(signal.SIGTERM)
        assert [reply.status_code for reply in await calls] == [200] * CALLS
        assert await asyncio.to_thread(served.process.wait, 60) == 0
        assert not any(map(is_alive, family))


async def test_a_second_sigterm_stops_hard(tmp_path: Path) -> None:
    with adopting_orphans(), serving(tmp_path, "--fake-delay-ms", LONG_BATCH_MS) as served:
        call = asyncio.create_task(ask(served.url, triples(1)))
        await until(lambda: state(served)["triples_in_flight"] == 1)
        family, busy = children(served), worker(served)
        served.process.send_signal(signal.SIGTERM)
        await until(lambda: "draining" in served.log.read_text())
        assert served.process.poll() is None
        served.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(served.process.wait, 60) == 1
        assert await ended_by(busy) == signal.SIGKILL  # in the middle of its batch
        await until(lambda: not any(map(is_alive, family)))
        await asyncio.gather(call, return_exceptions=True)


async def test_a_drain_that_takes_too_long_stops_hard_and_says_what_was_under_way(tmp_path: Path) -> None:
    with serving(tmp_path, "--fake-delay-ms", LONG_BATCH_MS, "--drain-seconds", "0.3") as served:
        call = asyncio.create_task(ask(served.url, triples(1)))
        await until(lambda: state(served)["triples_in_flight"] == 1)
        served.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(served.process.wait, 60) == 1
        last = json.loads(served.log.read_text().splitlines()[-1])
        assert last["event"].startswith("stopped hard: the drain took longer than --drain-seconds")
        assert last["requests_in_flight"] == 1
        await asyncio.gather(call, return_exceptions=True)


async def test_sigkill_leaves_no_child(tmp_path: Path) -> None:
    """Not even one that is in the middle of a long batch, or stopped."""
    with adopting_orphans(), serving(tmp_path, "--fake-delay-ms", LONG_BATCH_MS) as served:
        call = asyncio.create_task(ask(served.url, triples(1)))
        await until(lambda: state(served)["triples_in_flight"] == 1)
        family, busy = children(served), worker(served)
        assert busy in family
        stopped = decoders(served).pop()
        send([stopped], signal.SIGSTOP)
        served.process.kill()
        await asyncio.to_thread(served.process.wait)
        assert [await ended_by(pid) for pid in (busy, stopped)] == [signal.SIGKILL] * 2
        await until(lambda: not any(map(is_alive, family)))
        await asyncio.gather(call, return_exceptions=True)


def test_sigterm_during_load_exits_promptly(tmp_path: Path, tiny_folder: Path) -> None:
    check_that_sigterm_ends(tiny_folder, tmp_path)


def check_that_sigterm_ends(model: Path, tmp_path: Path) -> None:
    """The loading of this model."""
    log = tmp_path / "log"
    command = [MEDREWARD, "serve", "--model", str(model), *ANY_PORTS]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=CLEAN, cwd=tmp_path)
    try:
        while '"listening"' not in log.read_text():
            assert process.poll() is None
            time.sleep(0.005)
        process.terminate()
        started = time.monotonic()
        assert process.wait(60) == 0
        assert time.monotonic() - started < 30
    finally:
        process.kill()
        process.wait()
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert "ready" not in events
    assert events[-1] == "stopped"


def test_sigterm_while_gigabytes_are_verified_exits_promptly(tmp_path: Path, tiny_folder: Path) -> None:
    folder = tmp_path / "large"
    shutil.copytree(tiny_folder, folder)
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(2**40)  # takes no room, and an hour to read
    manifest = folder / "model.toml"
    manifest.write_text(manifest.read_text().replace("[files]\n", f'[files]\n"weights.bin" = "{"0" * 64}"\n'))
    check_that_sigterm_ends(folder, tmp_path)
