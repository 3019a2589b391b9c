from pathlib import Path

import pytest

from keyring import KeysFile


@pytest.fixture
def keys(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.jsonl")
