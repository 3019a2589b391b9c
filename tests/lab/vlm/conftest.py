from pathlib import Path

import pytest
import torch

from medreward.lab.vlm.phantom_rows import write_rows
from medreward.lab.vlm.tiny import write_tiny

SIDE = 48  # of the tiny model's images


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """On a busy machine threads that wait for each other burn the time that they wait."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    write_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("scans"), 60, SIDE)
