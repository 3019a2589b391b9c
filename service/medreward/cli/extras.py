"""How to install what a command lacks, for a package from an index and for a clone of the repository alike."""

import importlib.util
import sys
from pathlib import Path
from typing import Final

from medreward.errors import ConfigurationError

ROOT: Final = Path(__file__).parents[3]


def install(extra: str) -> str:
    """Returns the command that installs this extra of ours into the Python that runs."""
    if (ROOT / "pyproject.toml").is_file():  # a clone: what runs is installed from there, and may be on no index
        return f"{sys.executable} -m pip install -e '{ROOT}[{extra}]'"
    return f"{sys.executable} -m pip install 'medreward[{extra}]'"


def need_for_reports(command: str) -> None:
    """Fails with a ConfigurationError where a package that draws reports is not installed."""
    for name in ("jinja2", "matplotlib", "numpy"):
        if not importlib.util.find_spec(name):
            raise ConfigurationError(f"{command} needs {name}, which is not installed; run {install('bench')}")
