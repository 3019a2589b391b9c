"""A checkpoint's folder without `model.toml`, served as it is."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from backends.torch_vlm.checkpoints import SIDE, value_head, write_bare_checkpoint
from bench.hub import COMMIT, REPO, hub_of
from commands import ANY_PORTS, CLEAN, MEDREWARD, serving
from medreward.artifacts.repository import sha256_of
from medreward.backends.torch_vlm.adopt import adopt
from medreward.cli.doctor import command as doctor
from medreward.cli.models import command as models
from medreward.engine.files import find, open_verified
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from serving import running

HEAD = "reward_head.safetensors"
QUESTION, ANSWERS = "is there a fracture ?", ["yes , a small fracture", "no"]
SIZE = ["--image-size", str(SIDE)]


def classifier(folder: Path) -> dict[str, Any]:
    (folder / HEAD).unlink()
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "score.weight": torch.randn(6, 64)}, folder / "model.safetensors", {"format": "pt"})
    return {}


def with_value_head(folder: Path) -> dict[str, Any]:
    (folder / HEAD).unlink()
    save_file(value_head(), folder / "value_head.safetensors")
    return {}


def verbaliser(folder: Path) -> dict[str, Any]:
    (folder / HEAD).unlink()
    return {"heads": "verbaliser"}


def our_head(folder: Path) -> dict[str, Any]:
    return {}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "Our VLM"
    write_bare_checkpoint(folder)
    yield folder
    may_write(folder, True)


def may_write(folder: Path, may: bool) -> None:
    folder.chmod(0o755 if may else 0o555)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def body() -> dict[str, Any]:
    file = BytesIO()
    pixels = np.random.default_rng(7).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    asked = {"question": QUESTION, "responses": ANSWERS}
    return {"items": [{"image": image, **asked}, asked]}


async def answered(folder: Path, **given: Any) -> dict[str, Any]:
    async with running(model=str(folder), device="cpu", threads=1, **given) as server:
        reply: dict[str, Any] = (await server.rest.post("/v1/score", json=body())).raise_for_status().json()
    return {"model": reply["model"], "results": reply["results"]}


@pytest.mark.parametrize("layout", [our_head, classifier, with_value_head, verbaliser])
async def test_scores_and_fingerprint_are_those_after_adopting(
    folder: Path, layout: Callable[[Path], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    heads = layout(folder)
    before = contents(folder)
    may_write(folder, False)
    bare = await answered(folder, image_size=SIDE, **heads)
    assert contents(folder) == before
    assert [result["status"] for result in bare["results"]] == ["ok"] * 4
    [said] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert all(word in said for word in ("qwen2_5_vl", "not calibrated", "adopt")), said
    may_write(folder, True)
    adopt(folder, verbalise=bool(heads), side=SIDE)
    assert await answered(folder) == bare


def test_the_real_command_serves_a_folder_that_it_may_only_read(folder: Path, tmp_path: Path) -> None:
    verbaliser(folder)
    before = contents(folder)
    may_write(folder, False)
    flags = ["--model", str(folder), "--heads", "verbaliser", *SIZE, "--device", "cpu", "--threads", "1"]
    with serving(tmp_path, *flags) as served:
        reply = httpx.post(f"{served.url}/v1/score", json=body(), timeout=120).json()
        front = Path(f"/proc/{served.process.pid}/maps").read_text()
        lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    assert [result["status"] for result in reply["results"]] == ["ok"] * 4
    assert [line["level"] for line in lines if "verbaliser" in line["event"]] == ["warning"]
    assert "libtorch" not in front
    assert contents(folder) == before
    may_write(folder, True)
    adopt(folder, verbalise=True, side=SIDE)
    _, manifest = open_verified(Settings(model=str(folder)))
    assert reply["model"]["fingerprint"] == manifest.fingerprint


def test_what_is_not_recognised_ends_the_server_with_the_reason(folder: Path) -> None:
    (folder / HEAD).unlink()
    command = [MEDREWARD, "serve", *ANY_PORTS, "--model", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=CLEAN, timeout=300, check=False)
    assert done.returncode == 2
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["level"] == "error"
    assert "is not recognised: it has no head" in last["event"]
    assert "--heads verbaliser" in last["event"]
    assert "Traceback" not in done.stderr


def test_a_process_without_torch_says_what_to_install(folder: Path) -> None:
    script = "import sys; sys.modules['torch'] = None; from medreward.cli import main; main()"
    command = [sys.executable, "-c", script, "models", "inspect", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=CLEAN, timeout=300, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "medreward[vlm]" in done.stderr


@pytest.mark.parametrize("flags", [{"heads": "verbaliser"}, {"image_size": SIDE}])
def test_flags_that_a_manifest_would_outvote_are_refused(folder: Path, flags: dict[str, Any]) -> None:
    adopt(folder, side=SIDE)
    with pytest.raises(ConfigurationError, match="leave out --heads and --image-size"):
        find(Settings(model=str(folder), **flags))


def test_inspect_and_verify_show_what_would_be_served(folder: Path) -> None:
    before = contents(folder)
    told, checked = (
        json.loads(CliRunner().invoke(models, [verb, str(folder), *SIZE, "--json"], standalone_mode=False).stdout)
        for verb in ("inspect", "verify")
    )
    assert told["example_text"].startswith("<s><user><vision><image></vision>Is there a fracture?")
    assert told["name"] == "our-vlm"
    assert (checked["ok"], checked["fingerprint"]) == (True, told["fingerprint"])
    assert contents(folder) == before


def test_parity_and_doctor_take_it(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDREWARD_THREADS", "1")
    done = CliRunner().invoke(doctor, ["--parity", str(folder), *SIZE, "--json"], standalone_mode=False)
    assert json.loads(done.stdout)["ok"]
    assert len([record for record in caplog.records if "not calibrated" in record.getMessage()]) == 1
    done = CliRunner().invoke(doctor, ["--model", str(folder), *SIZE, "--json"], standalone_mode=False)
    [model] = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "model"]
    assert (model["status"], model["found"].split()[0]) == ("ok", "our-vlm")


def test_a_commit_on_the_hub_is_taken_with_what_transformers_may_read(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    home = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with hub_of(folder, "models") as hub:
        command = [MEDREWARD, "models", "inspect", f"{REPO}@{COMMIT}", *SIZE, "--json"]
        env = CLEAN | home | {"HF_ENDPOINT": hub.url}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done
    fetched = {path.partition(f"{COMMIT}/")[2] for path in hub.paths if "/resolve/" in path}
    assert "pytorch_model.bin" not in fetched
    assert "onnx/config.json" not in fetched
    found = json.loads(done.stdout)
    adopt(folder, side=SIDE)
    _, manifest = open_verified(Settings(model=str(folder)))
    assert (found["name"], found["fingerprint"]) == ("some-bench", manifest.fingerprint)


def test_files_that_change_while_they_are_read_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def and_then_it_changes(path: Path) -> str:
        before = sha256_of(path)
        (path.parent / "more.json").write_text("{}")
        return before

    monkeypatch.setattr("medreward.backends.torch_vlm.adopt.sha256_of", and_then_it_changes)
    with pytest.raises(ConfigurationError, match="changed while they were read"):
        find(Settings(model=str(folder), isolation="inline"))
