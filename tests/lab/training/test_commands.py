"""`medreward train` and `medreward models export`, from a recipe to a folder that serves."""

import json
import subprocess
from pathlib import Path

import pytest

from commands import CLEAN, MEDREWARD, assert_refused
from lab.training.shapes import tiny_recipe


def write_recipe(encoder: Path, to: Path) -> Path:
    settings = tiny_recipe(encoder)
    tables = settings.model_dump()
    lines = [f"{key} = {json.dumps(value)}" for key, value in tables.items() if not isinstance(value, dict)]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    to.write_text("\n".join(lines) + "\n")
    return to


def medreward(*words: object) -> subprocess.CompletedProcess[str]:
    command = [MEDREWARD, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=CLEAN, timeout=300, check=False)


@pytest.mark.slow
def test_a_recipe_becomes_a_model_that_verifies(data: Path, encoder: Path, tmp_path: Path) -> None:
    recipe, run, model = write_recipe(encoder, tmp_path / "recipe.toml"), tmp_path / "run", tmp_path / "model"
    trained = medreward("train", "--recipe", recipe, "--data", data, "--out", run)
    assert trained.returncode == 0, trained.stderr
    exported = medreward("models", "export", run, model, "--data", data, "--json")
    assert exported.returncode == 0, exported.stderr
    verified = json.loads(medreward("models", "verify", model, "--json").stdout)
    assert verified["ok"]
    assert verified["fingerprint"] == json.loads(exported.stdout)["fingerprint"]
    evidence, card = json.loads((model / "measured.json").read_text()), (model / "card.md").read_text()
    assert evidence["model"]["fingerprint"] == verified["fingerprint"]
    assert {"measured.json", "card.md"} <= set(verified["files"])
    assert "on 64 pairs of 16 development images" in card
    assert "no physician graded an answer" in card
    measured = medreward(
        "models", "measure", model, "--data", data, "--phantoms", 4, "--json", "--out", tmp_path / "card.md"
    )
    assert json.loads(measured.stdout)["pairs"] == evidence["pairs"]
    pairs = card.partition("## Accuracy on phantoms")[0]
    assert (tmp_path / "card.md").read_text().startswith(pairs)
    assert str(tmp_path) not in (model / "score.onnx").read_bytes().decode("latin-1")


def test_a_bad_recipe_and_an_unfinished_run_are_refused(data: Path, encoder: Path, tmp_path: Path) -> None:
    recipe = write_recipe(encoder, tmp_path / "recipe.toml")
    recipe.write_text(recipe.read_text().replace("[warm_up]", "[warm_up]\nmintues = 3"))
    refused = medreward("train", "--recipe", recipe, "--data", data, "--out", tmp_path / "run")
    assert_refused(refused, "recipe.toml", "warm_up.mintues")
    assert_refused(medreward("models", "export", tmp_path, tmp_path / "model"), "recipe.toml")
