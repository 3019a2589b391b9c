from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Path:
    return tiny_folder
