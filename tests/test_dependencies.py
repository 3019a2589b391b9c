"""Version floors with security reasons hold for what is installed and for what is locked for deployments."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "deploy/requirements-cpu.txt").read_text()
LOCKED = {name: Version(version) for name, version in re.findall(r"^([a-z0-9._-]+)==(\S+) \\$", LOCK, re.MULTILINE)}

#: Below these stand known vulnerabilities.
FLOORS = {
    "onnx": "1.21",
    "pillow": "13.0.0",
    "protobuf": "6.33.5",
    "python-multipart": "0.0.26",
    "starlette": "1.3.1",
    "torch": "2.10",
    "transformers": "5.3.0",
}


def declared() -> list[tuple[str, Requirement]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return [(extra, Requirement(line)) for extra, lines in groups.items() for line in lines]


@pytest.mark.parametrize("package", FLOORS)
def test_a31_a_floor_is_declared_wherever_the_package_is_asked_for(package: str) -> None:
    asked = [requirement for _, requirement in declared() if requirement.name == package]
    assert asked
    for requirement in asked:
        lowest = min(Version(bound.version) for bound in requirement.specifier if bound.operator in (">=", "=="))
        assert lowest >= Version(FLOORS[package])


@pytest.mark.parametrize("package", FLOORS)
def test_a31_what_runs_here_is_not_below_its_floor(package: str) -> None:
    assert Version(metadata.version(package)) >= Version(FLOORS[package])


def test_a31_what_is_locked_is_what_the_server_asks_for() -> None:
    for extra, requirement in declared():
        if extra in ("", "server", "cpu") and requirement.name != "medreward":
            assert LOCKED[requirement.name] in requirement.specifier, requirement
    assert all(LOCKED[name] >= Version(floor) for name, floor in FLOORS.items() if name in LOCKED)


def test_every_locked_package_has_its_hashes_and_no_place_of_its_own() -> None:
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)
    assert len(entries) > 40
    assert entries[0] == ""
    for entry in entries[1:]:
        assert re.match(r"[a-z0-9._-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry
    assert not re.search(r"://|--index-url|--extra-index-url|--find-links|--trusted-host| @ ", LOCK)
