"""The embedded set: a benchmark without a file."""

import json
from functools import partial
from pathlib import Path

import pytest

from medreward.cli import app
from medreward.lab.phantoms import benchmark

pytestmark = pytest.mark.slow


def test_the_embedded_benchmark_runs_and_says_that_its_labels_are_constructed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "write", partial(benchmark.write, count=26))  # all 390 take 10 s to draw
    run = ["bench", "run", "--data", "phantom", "--model", "fake", "--out", str(tmp_path / "run")]
    assert app.main(run, standalone_mode=False) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["statuses"] == {"ok": 26}
    assert len(summary["official"]) == 13
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["data_digest"] == benchmark.digest(benchmark.cases(count=26))
    assert about["evidence"] == {"constructed": 26}
