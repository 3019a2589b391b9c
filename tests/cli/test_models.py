"""`medreward models`: what lies on disk, and whether it is whole."""

import hashlib
import json
from pathlib import Path

import pytest

from bench.hub import COMMIT, REPO, hub_of
from commands import Run, assert_refused

pytestmark = pytest.mark.slow


def test_list_names_what_can_be_served(run: Run, models_dir: Path) -> None:
    (models_dir / "broken").mkdir()
    (models_dir / "broken" / "model.toml").write_text('name = "broken"\n')
    done = run("models", "list", "--models-dir", models_dir)
    assert done.returncode == 0
    broken, small = (line.split() for line in done.stdout.splitlines() if line.split()[:1] in (["small"], ["broken"]))
    assert small[:4] == ["small", "1.2.3", "constructed", "onnx"]
    assert len(small[4]) == 12
    assert "model.toml:" in " ".join(broken)
    listed = json.loads(run("models", "list", "--json", MEDREWARD_MODELS_DIR=str(models_dir)).stdout)
    assert [model["name"] for model in listed] == ["broken", "small"]
    assert listed[1]["fingerprint"].removeprefix("sha256:").startswith(small[4])


def test_an_empty_repository_is_said_to_be_empty(run: Run, tmp_path: Path) -> None:
    assert json.loads(run("models", "list", "--json", "--models-dir", tmp_path).stdout) == []
    assert f"there are no models in {tmp_path}" in run("models", "list", "--models-dir", tmp_path).stderr


def test_inspect_shows_the_manifest_and_the_text_the_model_reads(run: Run, models_dir: Path) -> None:
    facts = json.loads(run("models", "inspect", "small", "--models-dir", models_dir, "--json").stdout)
    graph = b"score graph"
    assert facts["files"]["score.onnx"] == {"bytes": len(graph), "sha256": hashlib.sha256(graph).hexdigest()}
    assert facts["example_text"] == "[CLS]Is there a fracture?[SEP]Yes, of the left sixth rib.[SEP]"
    assert facts["weights"]["overall"] == 1.0
    shown = run("models", "inspect", models_dir / "small").stdout
    assert facts["fingerprint"] in shown
    assert facts["example_text"] in shown
    assert facts["files"]["score.onnx"]["sha256"] in shown


def test_verify_passes_whole_files(run: Run, models_dir: Path) -> None:
    done = run("models", "verify", "small", "--models-dir", models_dir)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"{name} " in done.stdout for name in ("image.onnx", "score.onnx", "tokenizer.json"))


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_verify_names_the_file_that_differs_and_exits_1(run: Run, models_dir: Path, flags: list[str]) -> None:
    (models_dir / "small" / "score.onnx").write_bytes(b"score graqh")
    (models_dir / "small" / "tokenizer.json").unlink()
    done = run("models", "verify", "small", "--models-dir", models_dir, *flags)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "score.onnx does not match" in done.stderr
    assert "tokenizer.json is missing" in done.stderr
    assert "image.onnx" not in done.stderr
    if flags:
        files = json.loads(done.stdout)["files"]
        assert files["image.onnx"] == "ok"
        assert files["score.onnx"] != "ok"


@pytest.mark.parametrize("verb", ["inspect", "verify"])
def test_a_model_that_is_not_there_is_one_line_and_exit_2(run: Run, models_dir: Path, verb: str) -> None:
    assert_refused(run("models", verb, "large", "--models-dir", models_dir), "'large'", "small")


def test_a_mistyped_verb_is_one_line_and_exit_2(run: Run) -> None:
    assert_refused(run("models", "lst"), "lst", "list")


def test_a_model_comes_from_the_hub_at_a_commit_with_what_its_manifest_lists(
    run: Run, models_dir: Path, tmp_path: Path
) -> None:
    (models_dir / "small" / "pytorch_model.bin").write_bytes(b"a pickle")
    home = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with hub_of(models_dir / "small", "models") as hub:
        done = run("models", "verify", f"{REPO}@v1.0", HF_ENDPOINT=hub.url, **home)
        assert done.returncode == 0, (done, hub.paths)
        assert done.stderr == f"model {REPO}: revision v1.0 is commit {COMMIT} today\n"
        assert not any("pytorch_model" in path for path in hub.paths)
        assert_refused(run("models", "verify", f"{REPO}@v2", HF_ENDPOINT=hub.url, **home), "v2", "hub")
        (models_dir / "small" / "model.toml").unlink()
        bare = {**home, "HF_HUB_CACHE": str(tmp_path / "other")}
        moving = run("models", "verify", f"{REPO}@v1.0", HF_ENDPOINT=hub.url, **bare)
        assert_refused(moving, f"{REPO}@{COMMIT}", "adopt")
        gone = hub.url
    kept = run("models", "verify", f"{REPO}@{COMMIT}", HF_ENDPOINT=gone, **home)
    assert (kept.returncode, kept.stderr) == (0, "")
