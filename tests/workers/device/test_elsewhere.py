"""A worker under another interpreter, which has less than ours: the same numbers, and the same end of every fault."""

import asyncio
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from medreward.artifacts.manifest import Manifest
from medreward.backends.base import Group
from medreward.backends.fake import FAKE_MANIFEST, FakeBackend
from medreward.errors import ConfigurationError, ItemError
from medreward.settings import Settings
from medreward.workers.device.process_worker import ProcessWorker
from medreward.workers.device.worker import WorkerLost
from medreward.workers.frames import GroupFrame
from medreward.workers.memory import anonymous_memory

pytestmark = pytest.mark.slow

#: All that a worker takes from an environment, beside what its backend does.
NEEDED = (
    *("msgspec", "numpy", "numpy.libs", "pydantic", "pydantic_core", "pydantic_settings"),
    *("annotated_types", "typing_extensions.py", "typing_inspection", "dotenv"),
)
FRAMES = [GroupFrame([], (n, n + 1), ((n,), (n, n))) for n in range(3)]


def environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """Makes an environment with these packages of ours alone, and returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    for package in packages:
        (own / package).symlink_to(Path(sysconfig.get_path("purelib")) / package)
    return python


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("bare") / "venv", NEEDED)


@asynccontextmanager
async def started(
    python: Path, lost: list[str], manifest: Manifest = FAKE_MANIFEST, folder: Path | None = None, **given: object
) -> AsyncIterator[ProcessWorker]:
    fd = anonymous_memory(1)
    settings = Settings.model_validate({"worker_python": python, **given})
    worker = ProcessWorker(settings, manifest, folder, fd, lost.append)
    try:
        await worker.start()
        yield worker
    finally:
        await worker.close()
        os.close(fd)


def command_of(worker: ProcessWorker) -> list[bytes]:
    return Path(f"/proc/{worker.pid}/cmdline").read_bytes().split(b"\0")


async def assert_scores(worker: ProcessWorker, python: Path) -> None:
    done = await worker.score(FRAMES)
    ours = FakeBackend().score([Group(None, frame.prompt, frame.answers) for frame in FRAMES])
    for theirs, own in zip(done.outcomes, ours, strict=True):
        assert not any(isinstance(outcome, ItemError) for outcome in theirs)
        assert np.array_equal(np.stack([np.asarray(outcome) for outcome in theirs]), own)
    assert command_of(worker)[0] == os.fsencode(python)


async def test_another_interpreter_gives_our_numbers_before_and_after_a_crash(bare: Path) -> None:
    lost: list[str] = []
    async with started(bare, lost, fake_delay_ms=300) as worker:
        await assert_scores(worker, bare)
        batch = asyncio.create_task(worker.score(FRAMES))
        await asyncio.sleep(0.1)
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerLost, match="crash"):
            await batch
        await asyncio.wait_for(worker.ready(), 60)
        await assert_scores(worker, bare)
    assert lost == ["crash"]


async def test_an_interpreter_that_lacks_a_package_is_refused_and_the_log_names_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    without = environment(tmp_path / "venv", tuple(package for package in NEEDED if package != "msgspec"))
    with pytest.raises(ConfigurationError, match="its own lines in the log say"):
        async with started(without, []):
            pass
    assert f"{without} has no module msgspec" in capfd.readouterr().err


async def test_what_is_no_interpreter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no program"):
        async with started(tmp_path / "python", []):
            pass


async def test_vllm_is_asked_for_where_it_is_not(bare: Path, tmp_path: Path) -> None:
    facts = FAKE_MANIFEST.model_dump(mode="json") | {
        "runtime": "torch_vlm",
        "vlm": {"image": ["<image>"], "head": "head.safetensors"},
        "text": {"tokenizer": "t.json", "prompt": ["{image}", "{question}"], "answer": ["{response}", "</s>"]}
        | {"max_tokens": 64},
        "files": dict.fromkeys(("t.json", "config.json", "head.safetensors"), "0" * 64),
    }
    with pytest.raises(ConfigurationError, match=r"has no module torch: .* that has vLLM with --worker-python"):
        async with started(bare, [], Manifest.model_validate(facts), tmp_path, backend="vllm"):
            pass


async def test_vllm_runs_no_other_model(bare: Path) -> None:
    with pytest.raises(ConfigurationError, match="is for models of runtime torch_vlm, and fake has fake"):
        async with started(bare, [], backend="vllm"):
            pass
