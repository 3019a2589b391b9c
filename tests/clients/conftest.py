from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from clients.processes import Process
from medreward.clients import AsyncClient


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A process that serves the fake model."""
    process = Process(tmp_path_factory.mktemp("server"), ("--model=fake",))
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
