"""Versions of policies on disk: what was published does not change, across restarts too."""

import errno
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from medreward.errors import ConfigurationError, RequestError
from medreward.screening.policies import Policies
from medreward.screening.policy_folder import Served
from medreward.types import DIMENSIONS
from policies import FINGERPRINT, policy_text, publish, threshold


def started(folder: Path | None, own: Path | None = None) -> Policies:
    policies = Policies(folder, None)
    policies.load(Served(FINGERPRINT, DIMENSIONS, True), {}, own)
    policies.come_into_force()
    return policies


def write(folder: Path, version: str, at_least: float = 0.0) -> Path:
    return publish(folder, policy_text(threshold("good", "allow", at_least), version=version), version=version)


def current(policies: Policies) -> str:
    return policies.get("strict")[0].policy.version


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "1")
    write(tmp_path, "2")
    (tmp_path / "strict" / "current").write_text("1\n")
    return tmp_path


def test_a_published_version_that_changed_stops_the_next_start_by_its_name(folder: Path) -> None:
    policies = started(folder)
    policies.move("strict", "2")
    policies.move("strict", "1")
    changed = write(folder, "2", at_least=0.5)  # which is not the current one
    with pytest.raises(ConfigurationError, match=f"{changed} has changed since it was published"):
        started(folder)
    write(folder, "2")
    assert current(started(folder)) == "1"


def test_a_version_that_was_never_current_is_a_draft(folder: Path) -> None:
    started(folder)
    write(folder, "2", at_least=0.5)
    policies = started(folder)
    policies.move("strict", "2")
    write(folder, "2", at_least=0.7)
    with pytest.raises(ConfigurationError, match=r"2\.toml has changed"):
        started(folder)


def test_a_published_version_does_not_come_back_as_another(folder: Path) -> None:
    started(folder)
    (folder / "strict" / "current").write_text("2")
    (folder / "strict" / "1.toml").unlink()
    policies = started(folder)
    write(folder, "1", at_least=0.5)
    with pytest.raises(RequestError, match=r"1\.toml has changed"):
        policies.move("strict", "1")


def test_the_ledger_is_what_sha256sum_checks(folder: Path) -> None:
    started(folder).move("strict", "2")
    started(folder)
    assert (folder / "strict" / "published").read_text().count("\n") == 2
    command = ["sha256sum", "--check", "--strict", "published"]
    assert subprocess.run(command, cwd=folder / "strict", capture_output=True, check=True).stdout == (
        b"1.toml: OK\n2.toml: OK\n"
    )


def test_a_folder_that_cannot_be_written_works_without_a_ledger(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = Path.open

    def read_only(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode != "r" and "b" not in mode:
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", read_only)
    with caplog.at_level(logging.INFO):
        assert current(started(folder)) == "1"
    assert not (folder / "strict" / "published").exists()
    assert "cannot be written" in caplog.text


def test_a_models_own_policies_get_no_ledger(folder: Path) -> None:
    assert current(started(None, own=folder)) == "1"
    assert not (folder / "strict" / "published").exists()


def test_a_mounted_config_map(tmp_path: Path) -> None:
    """Its files are symbolic links into a hidden folder, which an update replaces at once."""

    def mount(time: str, version: str) -> None:
        for each in ("1", "2"):
            write(tmp_path / time, each)
        (tmp_path / time / "strict" / "current").write_text(version)
        (tmp_path / "..new").symlink_to(time)
        (tmp_path / "..new").rename(tmp_path / "..data")

    mount("..2026_01", "1")
    (tmp_path / "strict").symlink_to("..data/strict")
    assert current(started(tmp_path)) == "1"
    mount("..2026_02", "2")
    shutil.rmtree(tmp_path / "..2026_01")
    policies = started(tmp_path)
    assert (policies.names, current(policies)) == (["strict"], "2")


def test_a_mounted_config_map_of_one_policy(tmp_path: Path) -> None:
    hidden, policy = tmp_path / "strict" / "..2026", tmp_path / "strict"
    hidden.mkdir(parents=True)
    (hidden / "1.toml").write_text(policy_text(threshold("good", "allow", 0.0)))
    (hidden / "current").write_text("1\n")
    (policy / "..data").symlink_to("..2026")
    for name in ("1.toml", "current"):
        (policy / name).symlink_to(f"..data/{name}")
    assert current(started(tmp_path)) == "1"


def test_a_move_is_logged_with_its_key(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        started(folder).move("strict", "2", "5f5f5f5f5f5f5f5f")
    told = vars(caplog.records[-1])
    assert told["message"] == "the pointer of a policy was moved"
    assert [told[name] for name in ("policy", "from", "to", "key")] == ["strict", "1", "2", "5f5f5f5f5f5f5f5f"]


@pytest.mark.parametrize(
    ("pointer", "says"),
    [
        ("3", "the version '3': it must name one of 1, 2"),
        ("x" * 99, "something else than a version"),
        (b"\xff", "read"),
    ],
)
def test_a_pointer_that_names_no_version_stops_the_start(folder: Path, pointer: str | bytes, says: str) -> None:
    written = pointer if isinstance(pointer, bytes) else pointer.encode()
    (folder / "strict" / "current").write_bytes(written)
    with pytest.raises(ConfigurationError, match=says):
        started(folder)
