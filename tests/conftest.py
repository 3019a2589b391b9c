from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from serving import Server, running
from tiny_model import Shape, write_tiny_model

#: The same examples in every run, and as much time for each as a busy machine takes.
settings.register_profile(
    "tests", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def two_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two dimensions."""
    folder = tmp_path_factory.mktemp("models") / "two"
    write_tiny_model(folder, shape=Shape(dimensions=("accuracy", "overall")))
    return folder


@pytest.fixture(scope="session")
async def tiny(tiny_folder: Path) -> AsyncIterator[Server]:
    """A server of a small ONNX model."""
    async with running(isolation="process", model=str(tiny_folder)) as server:
        yield server


@pytest.fixture(scope="session")
async def fake() -> AsyncIterator[Server]:
    """A server of the fake backend."""
    async with running() as server:
        yield server


@pytest.fixture(scope="session")
async def slow() -> AsyncIterator[Server]:
    """A server whose model takes a second for a batch."""
    async with running(fake_delay_ms=1000, score_cache_bytes=0) as server:
        yield server
