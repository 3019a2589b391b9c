"""Evidence in a model's folder: written by the gate, asked for at the start of a server."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.gating import edit, gate
from bench.runs import make_run
from bench.sets import some_cases
from medreward.artifacts.evidence import policy_digest, policy_file, require_evidence, write_evidence
from medreward.artifacts.manifest import read_manifest
from medreward.artifacts.repository import MANIFEST_FILE
from medreward.cli import app
from medreward.engine.model import open_model
from medreward.errors import ConfigurationError
from medreward.logs import JsonFormatter
from medreward.settings import Settings


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_folder, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def fingerprint(model: Path) -> str:
    found: str = read_manifest(model / MANIFEST_FILE).fingerprint
    return found


def verdict(fingerprint: str, said: str, policy: str = "default", data: str = "sha256:data") -> dict[str, Any]:
    return {
        "verdict": said,
        "candidate": {"fingerprint": fingerprint},
        "baseline": {"fingerprint": "sha256:served"},
        "data": {"digest": data, "labels": {"constructed": 400}},
        "policy": {"digest": policy_digest(policy_file(policy))},
    }


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
    with pytest.raises(ConfigurationError, match="was refused under policy default"):  # the later verdict counts
        open_model(settings)
    open_model(Settings(model=str(model)))


def test_evidence_of_anything_else_is_none(model: Path, fingerprint: str, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("alpha = 0.05\n")
    for word, document in {
        "another model": verdict("sha256:other", "promote"),
        "another policy": verdict(fingerprint, "promote", str(own)),
        "says undecided": verdict(fingerprint, "undecided"),
        "cannot be read": {"policy": {"digest": "sha256:x"}, "data": {"digest": "sha256:y"}},
    }.items():
        written = write_evidence(model, document)
        with pytest.raises(ConfigurationError, match=word):
            require_evidence(model, fingerprint, "default")
        written.unlink()
    write_evidence(model, verdict(fingerprint, "promote"))
    require_evidence(model, fingerprint, "default")
    with pytest.raises(ConfigurationError, match="there is no policy at"):
        require_evidence(model, fingerprint, str(tmp_path / "none.toml"))


def test_a_verdict_on_other_data_stands_beside_the_first_and_a_refusal_counts(model: Path, fingerprint: str) -> None:
    promoted = write_evidence(model, verdict(fingerprint, "promote"))
    undecided = write_evidence(model, verdict(fingerprint, "undecided", data="sha256:other"))
    assert len({promoted, undecided}) == 2
    found = require_evidence(model, fingerprint, "default")
    assert (found.file, found.data_digest, found.baseline) == (promoted, "sha256:data", "sha256:served")
    refused = write_evidence(model, verdict(fingerprint, "refuse", data="sha256:other"))
    assert refused == undecided
    with pytest.raises(ConfigurationError, match="was refused under policy default"):
        require_evidence(model, fingerprint, "default")


def test_a_server_logs_which_evidence_it_starts_on(
    model: Path, fingerprint: str, caplog: pytest.LogCaptureFixture
) -> None:
    written = write_evidence(model, verdict(fingerprint, "promote"))
    with caplog.at_level("INFO", "medreward"):
        open_model(Settings(model=str(model), require_evidence="default"))
    (record,) = (record for record in caplog.records if record.getMessage() == "evidence")
    line = json.loads(JsonFormatter().format(record))
    wanted = {"file": str(written), "policy": "default", "data_digest": "sha256:data", "baseline": "sha256:served"}
    assert wanted.items() <= line.items()
    assert line["labels"] == {"constructed": 400}


def test_with_out_the_gate_writes_into_the_models_folder_only_if_it_is_named(
    model: Path, fingerprint: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", some_cases(20), model=fingerprint.removeprefix("sha256:"))
    edit(run / "run.json", lambda about: about.update(folder=str(model)))
    out = tmp_path / "out"
    gate("--candidate", run, "--out", out)
    assert (out / "gate.json").exists()
    assert not (model / "evidence").exists()
    gate("--candidate", run, "--out", out, "--evidence", model)
    (written,) = (model / "evidence").iterdir()
    written.unlink()
    gate("--candidate", run)
    assert len([*(model / "evidence").iterdir()]) == 1


def test_a_run_of_another_model_is_no_evidence_for_this_one(model: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", some_cases(20), model="other")
    with pytest.raises(ConfigurationError, match="does not hold the model"):
        app.main(["bench", "gate", "--candidate", str(run), "--evidence", str(model)], standalone_mode=False)
    assert not (model / "evidence").exists()


def test_the_fake_model_has_none() -> None:
    with pytest.raises(ConfigurationError, match="the fake model has no evidence"):
        open_model(Settings(model="fake", require_evidence="default"))
