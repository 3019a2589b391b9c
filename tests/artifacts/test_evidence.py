"""Evidence in a model's folder: written by the gate, asked for at the start of a server."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.runs import make_run
from bench.sets import some_cases
from medreward.artifacts.evidence import policy_digest, policy_file, require_evidence, write_evidence
from medreward.artifacts.manifest import read_manifest
from medreward.artifacts.repository import MANIFEST_FILE
from medreward.cli import app
from medreward.engine.model import open_model
from medreward.errors import ConfigurationError
from medreward.settings import Settings


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_folder, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def fingerprint(model: Path) -> str:
    found: str = read_manifest(model / MANIFEST_FILE).fingerprint
    return found


def verdict(fingerprint: str, said: str, policy: str = "default") -> dict[str, Any]:
    digest = policy_digest(policy_file(policy))
    return {"verdict": said, "candidate": {"fingerprint": fingerprint}, "policy": {"digest": digest}}


def test_the_gate_writes_what_a_server_asks_for(model: Path, fingerprint: str, tmp_path: Path) -> None:
    settings = Settings(model=str(model), require_evidence="default")
    with pytest.raises(ConfigurationError, match=r"there is none in .*evidence"):
        open_model(settings)
    cases = some_cases(400)
    name = fingerprint.removeprefix("sha256:")
    for right, code in ((0.75, 0), (0.3, 1)):
        run = make_run(tmp_path / f"run-{code}", cases, right=right, model=name)
        command = ["bench", "gate", "--candidate", str(run), "--evidence", str(model)]
        assert app.main(command, standalone_mode=False) == code
        (written,) = (model / "evidence").iterdir()
        assert json.loads(written.read_text()) == json.loads((run / "gate.json").read_text())
        if code == 0:
            assert open_model(settings).manifest.fingerprint == fingerprint
    with pytest.raises(ConfigurationError, match="says refuse"):  # the later verdict counts
        open_model(settings)
    open_model(Settings(model=str(model)))


def test_evidence_of_anything_else_is_none(model: Path, fingerprint: str, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("alpha = 0.05\n")
    for word, document in {
        "another model": verdict("sha256:other", "promote"),
        "another policy": verdict(fingerprint, "promote", str(own)),
        "says undecided": verdict(fingerprint, "undecided"),
        "cannot be read": {"policy": {"digest": "sha256:x"}},
    }.items():
        written = write_evidence(model, document)
        with pytest.raises(ConfigurationError, match=word):
            require_evidence(model, fingerprint, "default")
        written.unlink()
    write_evidence(model, verdict(fingerprint, "promote"))
    require_evidence(model, fingerprint, "default")
    with pytest.raises(ConfigurationError, match="no policy at"):
        require_evidence(model, fingerprint, str(tmp_path / "none.toml"))


def test_a_run_of_another_model_is_no_evidence_for_this_one(model: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", some_cases(20), model="other")
    with pytest.raises(ConfigurationError, match="does not hold the model"):
        app.main(["bench", "gate", "--candidate", str(run), "--evidence", str(model)], standalone_mode=False)
    assert not (model / "evidence").exists()


def test_the_fake_model_has_none() -> None:
    with pytest.raises(ConfigurationError, match="the fake model has no evidence"):
        open_model(Settings(model="fake", require_evidence="default"))
