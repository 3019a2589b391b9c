import platform
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from commands import Served, serving
from keyring import KeysFile

#: The one place that the trainers' wheels fit.
FITS = (sys.version_info[:2], sys.platform, platform.machine()) == ((3, 11), "linux", "x86_64")
REAL = ("openrlhf", "verl", "ms_swift", "llamafactory", "areal", "inference")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return True if not FITS and collection_path.stem.removeprefix("test_") in REAL else None


def pytest_report_header() -> str | None:
    return None if FITS else "trainers: their wheels are for Python 3.11 on Linux x86-64: their tests are left out"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the bundled model."""
    with serving(tmp_path_factory.mktemp("trainers"), "--model", "medreward-mini") as served:
        yield served


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Served]]:
    """A server that wants a key: with the key in its address, as trainers can send one, and without."""
    folder = tmp_path_factory.mktemp("locked")
    key = KeysFile(folder / "keys.json").new()
    with serving(folder, "--keys-file", str(folder / "keys.json")) as served:
        yield replace(served, url=served.url.replace("http://", f"http://x:{key}@")), served


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose batches take long enough for its worker to be killed in one."""
    flags = ("--fake-delay-ms", "1500", "--score-cache-bytes", "0")
    with serving(tmp_path_factory.mktemp("victim"), *flags) as served:
        yield served
