"""Version floors with security reasons hold for what is installed and for what is locked; locks fit pyproject.toml."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCKS = {path.stem: path.read_text() for path in (ROOT / "deploy/locks").glob("*.txt")}

#: Extras of pyproject.toml that each lock holds.
EXTRAS = {
    "serve": {"", "server", "cpu"},
    "test": {"", "server", "cpu", "dev", "bench", "trl", "parquet"},
    "vlm": {"", "server", "cpu", "vlm"},
    "gpu": {"", "server", "gpu", "vlm"},
    "bench": {"", "server", "cpu", "bench", "parquet"},
    "ray": {"", "server", "cpu", "ray", "parquet"},
}

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


def locked(name: str) -> dict[str, set[Version]]:
    """Versions by package: more than one where they differ between Pythons."""
    found: dict[str, set[Version]] = {}
    for package, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", LOCKS[name], re.MULTILINE):
        found.setdefault(package, set()).add(Version(version))
    return found


def declared() -> list[tuple[str, Requirement]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return [(extra, Requirement(line)) for extra, lines in groups.items() for line in lines]


@pytest.mark.parametrize("package", FLOORS)
def test_a_floor_is_declared_wherever_the_package_is_asked_for(package: str) -> None:
    asked = [requirement for _, requirement in declared() if requirement.name == package]
    assert asked
    for requirement in asked:
        lowest = min(Version(bound.version) for bound in requirement.specifier if bound.operator in (">=", "=="))
        assert lowest >= Version(FLOORS[package])


@pytest.mark.parametrize("package", FLOORS)
def test_what_runs_here_is_not_below_its_floor(package: str) -> None:
    assert Version(metadata.version(package)) >= Version(FLOORS[package])


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_holds_what_pyproject_asks_for(name: str) -> None:
    versions = locked(name) | locked("torch")
    for extra, requirement in declared():
        if extra in EXTRAS[name] and requirement.name != "medreward":
            assert versions[requirement.name], requirement
            assert versions[requirement.name] <= set(requirement.specifier.filter(versions[requirement.name])), (
                requirement
            )
    assert all(min(versions[package]) >= Version(floor) for package, floor in FLOORS.items() if package in versions)


@pytest.mark.parametrize("name", [name for name in EXTRAS if name != "test"])
def test_a_package_has_one_version_in_all_locks(name: str) -> None:
    tested = locked("test")
    for package, versions in locked(name).items():
        assert versions == tested.get(package, versions), package


@pytest.mark.parametrize("name", sorted(LOCKS.keys() - {"torch"}))
def test_every_locked_package_has_its_hashes_and_no_place_of_its_own(name: str) -> None:
    entries = re.split(r"^(?=[a-z0-9])", LOCKS[name], flags=re.MULTILINE)
    assert len(entries) > 5
    assert entries[0] == ""
    for entry in entries[1:]:
        assert re.match(r"[a-z0-9._-]+==\S+ (; .* )?\\\n    --hash=sha256:[0-9a-f]{64}", entry), entry
    assert not re.search(r"://|--index-url|--extra-index-url|--find-links|--trusted-host| @ ", LOCKS[name])
