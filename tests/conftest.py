import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from serving import Server, running

#: The same examples in every run, and as much time for each as a busy machine takes.
settings.register_profile(
    "tests", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

#: Imports that bring torch along, which takes seconds to load: `make quick` leaves the files that have one out.
LOADS_TORCH: Final = re.compile(
    r"^(from|import) (torch|transformers|tiny_model|tiny_vlm|lab\.training|bench\.vlm_server|backends\.torch_vlm"
    r"|medreward\.lab\.training|medreward\.backends\.torch_vlm)\b",
    re.MULTILINE,
)
#: Fixtures for which torch exports a model.
MADE_BY_TORCH: Final = {"tiny_folder", "two_folder"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out tests that are slow or load torch")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Returns True for a file, or a folder with a conftest.py, that loads torch; None where pytest shall decide."""
    source = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    if not config.getoption("quick") or not source.is_file():
        return None
    return True if LOADS_TORCH.search(source.read_text("utf-8")) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("quick"):
        slow = [
            item
            for item in items
            if item.get_closest_marker("slow") or MADE_BY_TORCH & {*getattr(item, "fixturenames", ())}
        ]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)


@pytest.fixture(autouse=True)
def no_torch_in_a_quick_run(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.config.getoption("quick"):
        assert "torch" not in sys.modules, "this test loads torch: see LOADS_TORCH in tests/conftest.py"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_model import write_tiny_model  # loads torch

    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def two_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two dimensions."""
    from tiny_model import Shape, write_tiny_model  # loads torch

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
