import hashlib
import os
import re
from pathlib import Path

import pytest

from medreward.artifacts.manifest import read_manifest
from medreward.artifacts.repository import list_models, resolve, verify
from medreward.engine.files import open_verified
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from tiny_model import manifest as manifest_text

CONTENT = {
    "image.onnx": b"image" * 500_000,
    "score.onnx": b"score" * 1000,
    "tokenizer.json": b"{}",
    "card.md": b"# card",
}


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    (folder / "model.toml").write_text(manifest_text(digests))
    return folder


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    write_model(tmp_path / "models" / "tiny")
    (tmp_path / "models" / "notes").mkdir()
    return tmp_path / "models"


def test_a_bundled_name_and_a_directory_open_the_same_model(models_dir: Path, tmp_path: Path) -> None:
    elsewhere = write_model(tmp_path / "else where")
    assert list_models(models_dir) == ["tiny"]
    folder, manifest = open_verified(Settings(model="tiny", models_dir=models_dir))
    assert folder == models_dir / "tiny"
    assert open_verified(Settings(model=str(elsewhere), models_dir=models_dir)) == (elsewhere, manifest)


def test_a_bundled_name_goes_before_a_directory_of_that_name(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny", models_dir) == models_dir / "tiny"
    assert resolve("./tiny", models_dir) == Path("tiny")


@pytest.mark.parametrize(
    "ref", ["", "nothing", "TINY", "../secret", "tiny/../../secret", "tiny/model.toml", "notes", "a\nb", "nul\0byte"]
)
def test_what_is_no_model_is_refused_in_one_line(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ref: str
) -> None:
    write_model(tmp_path / "secret")
    monkeypatch.chdir(tmp_path / "models" / "tiny")
    with pytest.raises(ConfigurationError, match="there: tiny") as refused:
        resolve(ref, models_dir)
    assert "\n" not in str(refused.value)


def test_a_directory_without_manifest_and_checkpoint_is_refused(models_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no model\.toml, nor the config\.json"):
        open_verified(Settings(model=str(models_dir / "notes")))


def test_no_models_folder_is_an_empty_one(tmp_path: Path) -> None:
    assert list_models(tmp_path / "none") == []


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink])
def test_a_damaged_file_is_refused_by_name(models_dir: Path, name: str, damage: object) -> None:
    assert callable(damage)
    damage(models_dir / "tiny" / name)
    with pytest.raises(ConfigurationError, match=re.escape(name)) as refused:
        open_verified(Settings(model="tiny", models_dir=models_dir))
    assert not any(other in str(refused.value) for other in CONTENT if other != name)


def test_verify_tells_every_problem(models_dir: Path) -> None:
    folder = models_dir / "tiny"
    manifest = read_manifest(folder / "model.toml")
    assert verify(folder, manifest) == {}
    (folder / "image.onnx").unlink()
    (folder / "image.onnx").mkdir()
    truncate(folder / "card.md")
    assert verify(folder, manifest) == {
        "image.onnx": "image.onnx cannot be read (Is a directory)",
        "card.md": "card.md does not match its digest in model.toml",
    }


def test_only_files_that_were_touched_since_are_read_again(models_dir: Path, tmp_path: Path) -> None:
    folder = models_dir / "tiny"
    manifest = read_manifest(folder / "model.toml")
    (tmp_path / "older").write_bytes(b"another graph")
    truncate(folder / "card.md")
    later = max(path.stat().st_ctime_ns for path in folder.iterdir()) + 10**10
    assert verify(folder, manifest, since=later) == {}
    os.utime(folder / "card.md", (0, 0))  # hides nothing
    (folder / "score.onnx").unlink()
    (folder / "score.onnx").symlink_to(tmp_path / "older")
    assert verify(folder, manifest, since=later - 10**10).keys() == {"card.md", "score.onnx"}


def test_the_fingerprint_knows_neither_place_nor_time(models_dir: Path, tmp_path: Path) -> None:
    _, here = open_verified(Settings(model="tiny", models_dir=models_dir))
    there_folder = write_model(tmp_path / "there")
    for path in there_folder.iterdir():
        os.utime(path, (0, 0))
    _, there = open_verified(Settings(model=str(there_folder), models_dir=models_dir))
    assert here.fingerprint == there.fingerprint
