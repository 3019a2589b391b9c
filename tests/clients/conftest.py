from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from clients.processes import Process
from medreward.backends.fake import FAKE_MANIFEST
from medreward.clients import AsyncClient
from policies import policy_text, publish, threshold


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A process that serves the fake model, with a policy."""
    folder = tmp_path_factory.mktemp("server")
    publish(folder / "policies", policy_text(threshold("good", "allow", 0.0), fingerprint=FAKE_MANIFEST.fingerprint))
    process = Process(folder, ("--model=fake", f"--policies={folder / 'policies'}"))
    process.start()
    yield process
    process.kill()


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path, ("--model=fake",))
    process.start()
    yield process
    process.kill()


@pytest.fixture(params=["http", "grpc"])
def door(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def client(server: Process, door: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.url(door)) as client:
        yield client
