"""A worker in a process of its own: the same numbers as in this one, and no batch left without an end."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from medreward.artifacts.manifest import Manifest, read_manifest
from medreward.backends.fake import FAKE_MANIFEST
from medreward.errors import ConfigurationError, ItemError
from medreward.settings import Settings
from medreward.workers.device import process_worker
from medreward.workers.device.process_worker import ProcessWorker
from medreward.workers.device.runner import Done
from medreward.workers.device.worker import WorkerLost
from medreward.workers.frames import GroupFrame, ImageFrame
from medreward.workers.memory import PixelMemory, Place, anonymous_memory
from waiting import until

pytestmark = pytest.mark.slow

SIDE = 64
BYTES = SIDE * SIDE * 3
GROUPS = [GroupFrame([], (n, n + 1), ((n,), (n, n))) for n in range(3)]


@asynccontextmanager
async def started(
    lost: list[str] | None = None,
    folder: Path | None = None,
    manifest: Manifest = FAKE_MANIFEST,
    verified_at: int = 0,
    **given: Any,
) -> AsyncIterator[Any]:
    fd = anonymous_memory(BYTES)
    reasons = lost if lost is not None else []
    worker = ProcessWorker(Settings(**given), manifest, folder, fd, reasons.append, verified_at=verified_at)
    try:
        await worker.start()
        yield worker
    finally:
        await worker.close()
        os.close(fd)


def pid_of(worker: ProcessWorker) -> int:
    pid = worker.state()["pid"]
    assert isinstance(pid, int)
    return pid


def numbers(done: Done) -> list[list[float]]:
    return [
        [float(outcome.sum()) for outcome in group if not isinstance(outcome, ItemError)] for group in done.outcomes
    ]


async def test_a_batch_there_and_back() -> None:
    async with started() as worker:
        done = await worker.score(GROUPS)
        assert [len(group) for group in done.outcomes] == [2, 2, 2]
        assert len({score for group in numbers(done) for score in group}) == 6
        assert numbers(await worker.score(GROUPS[::-1])) == numbers(done)[::-1]


async def test_pixels_reach_the_model_through_shared_memory(tiny_folder: Path) -> None:
    fd = anonymous_memory(2 * BYTES)
    places = [Place(offset, SIDE, SIDE) for offset in (0, BYTES)]
    PixelMemory(fd).pixels(places[1])[:] = 255
    groups = [GroupFrame([ImageFrame(place, f"image {n}", "")], (1, 2), ((3,),)) for n, place in enumerate(places)]
    settings, manifest = Settings(model=str(tiny_folder), threads=1), read_manifest(tiny_folder / "model.toml")
    worker = ProcessWorker(settings, manifest, tiny_folder, fd, lambda _: None)
    try:
        await worker.start()
        (black,), (white,) = numbers(await worker.score(groups))
        assert black != white
    finally:
        await worker.close()
        os.close(fd)


# A worker that the machine keeps waiting is silent as well: only where a hang is meant may a few seconds be one.
@pytest.mark.parametrize(("how", "reason", "silence"), [(signal.SIGKILL, "crash", 60), (signal.SIGSTOP, "hang", 5)])
async def test_a_batch_ends_with_its_worker_and_the_next_has_another(
    how: signal.Signals, reason: str, silence: float
) -> None:
    lost: list[str] = []
    async with started(lost, fake_delay_ms=1000, hang_seconds=silence) as worker:
        before, expected = pid_of(worker), numbers(await worker.score(GROUPS))
        batch = asyncio.create_task(worker.score(GROUPS))
        await asyncio.sleep(0.1)
        os.kill(before, how)
        with pytest.raises(WorkerLost, match=reason):
            await asyncio.wait_for(batch, 60)
        assert not worker.is_ready()
        await asyncio.wait_for(worker.ready(), 60)
        assert numbers(await worker.score(GROUPS)) == expected
        assert (lost, pid_of(worker) == before) == ([reason], False)


async def test_a_batch_that_never_ends_is_a_hang() -> None:
    lost: list[str] = []
    async with started(lost, fake_delay_ms=60_000, batch_seconds=0.5) as worker:
        with pytest.raises(WorkerLost, match="hang"):
            await asyncio.wait_for(worker.score(GROUPS), 30)
    assert lost == ["hang"]


async def test_a_long_batch_is_none() -> None:
    """Its heart beats on."""
    lost: list[str] = []
    async with started(lost, fake_delay_ms=7000, hang_seconds=5) as worker:  # fewer would fail on a machine under load
        await worker.score(GROUPS)
    assert lost == []


async def test_restarts_in_a_row_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_worker, "PAUSES", (0.0, 0.0, 0.0, 4.0))
    async with started(fake_delay_ms=5) as worker:
        waits = []
        for _ in range(4):
            os.kill(pid_of(worker), signal.SIGKILL)
            since = time.monotonic()
            with pytest.raises(WorkerLost):
                await worker.score(GROUPS)
            await worker.ready()
            waits.append(time.monotonic() - since)
    assert waits[3] >= 4
    assert waits[3] > min(waits) + 2


async def test_a_model_that_cannot_be_loaded_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="fake"):
        async with started(folder=tmp_path):
            pass


async def test_a_worker_that_is_killed_while_it_loads_is_a_refusal() -> None:
    async def killed() -> None:
        await until(lambda: worker.state()["pid"] is not None)
        os.kill(pid_of(worker), signal.SIGKILL)

    fd = anonymous_memory(BYTES)
    lost: list[str] = []
    worker = ProcessWorker(Settings(), FAKE_MANIFEST, None, fd, lost.append)
    try:
        with pytest.raises(ConfigurationError, match="ended while it loaded the model"):
            await asyncio.gather(worker.start(), killed())
    finally:
        await worker.close()
        os.close(fd)


async def test_a_model_that_takes_too_long_to_load_is_a_refusal() -> None:
    with pytest.raises(ConfigurationError, match=r"within 0\.001 s: raise --load-seconds"):
        async with started(load_seconds=0.001):
            pass


async def test_a_worker_that_starts_again_refuses_a_file_that_changed_until_it_is_back(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))
    manifest, verified_at = read_manifest(folder / "model.toml"), time.time_ns()
    (folder / "model.toml").unlink()  # the front's is the one that counts
    async with started(folder=folder, manifest=manifest, verified_at=verified_at, threads=1) as worker:
        (folder / "tokenizer.json").rename(tmp_path / "away")
        (folder / "tokenizer.json").write_text("{}")
        os.kill(pid_of(worker), signal.SIGKILL)
        await until(lambda: any("tokenizer.json does not match" in getattr(r, "error", "") for r in caplog.records))
        assert not worker.is_ready()
        (tmp_path / "away").rename(folder / "tokenizer.json")
        await worker.ready()
