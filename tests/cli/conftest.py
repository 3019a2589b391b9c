"""Fixtures of the command's tests: the command, servers for it, and a model folder without a model in it."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from commands import CLEAN, MEDREWARD, Run, Served, serving
from medreward.cli import main
from medreward.types import DIMENSIONS


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `medreward` in an empty folder."""

    def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [MEDREWARD, *map(str, arguments)]
        env = CLEAN | variables
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=300, check=False)

    return run


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `medreward` in this process: quicker, for what is refused before anything is done."""

    def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["medreward", *map(str, arguments)]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", command)
        for name in os.environ.keys() - CLEAN.keys():
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert isinstance(stopped.value.code, int)
        return subprocess.CompletedProcess(command, stopped.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture
def slow_server(tmp_path: Path) -> Iterator[Served]:
    """A batch takes it 100 ms."""
    with serving(tmp_path, "--fake-delay-ms", "100") as served:
        yield served


@pytest.fixture(scope="session")
def png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 24), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def picture(tmp_path: Path, png: bytes) -> Path:
    path = tmp_path / "pictures" / "chest.png"
    path.parent.mkdir()
    path.write_bytes(png)
    return path


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """One model, `small`; its files are those its manifest describes, though no graphs."""
    folder = tmp_path / "bundled" / "small"
    folder.mkdir(parents=True)
    files = {"image.onnx": b"image", "score.onnx": b"score graph", "tokenizer.json": b"{}"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digests = "\n".join(f'"{name}" = "{hashlib.sha256(content).hexdigest()}"' for name, content in files.items())
    calibration = "\n".join(f"{dimension} = {{ median = 0.0, scale = 1.0 }}" for dimension in DIMENSIONS)
    (folder / "model.toml").write_text(
        f"""
name = "small"
version = "1.2.3"
runtime = "onnx"
evidence = "constructed"
license = "Apache-2.0"
provenance = "written for a test"
[image]
width = 64
height = 64
[text]
tokenizer = "tokenizer.json"
prompt = ["[CLS]", "{{question}}", "[SEP]"]
answer = ["{{response}}", "[SEP]"]
max_tokens = 128
[onnx]
image_graph = "image.onnx"
score_graph = "score.onnx"
[weights]
overall = 1.0
[calibration]
{calibration}
[files]
{digests}
"""
    )
    return folder.parent
