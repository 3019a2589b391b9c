"""How to install what a command lacks, for a package from an index and for a clone of the repository alike."""

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]


def install(extra: str) -> str:
    """Returns the command that installs this extra of ours into the Python that runs."""
    if (ROOT / "pyproject.toml").is_file():  # a clone: what runs is installed from there, and may be on no index
        return f"{sys.executable} -m pip install -e '{ROOT}[{extra}]'"
    return f"{sys.executable} -m pip install 'medreward[{extra}]'"
