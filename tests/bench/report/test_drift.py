"""`medreward drift report` and `medreward shadow report`: what they find, say and draw."""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from browser import browser
from drifting import stationary
from medreward.cli import drift, shadow
from medreward.screening.samples import Sample
from medreward.types import DIMENSIONS

FINGERPRINT = f"sha256:{'a' * 64}"


def entry(number: int, sample: Sample, fingerprint: str) -> dict[str, Any]:
    """An entry of an audit log, of one image."""
    subject = {
        "images": [f"{number:064x}"],
        "scores": dict(zip(DIMENSIONS, sample.scores, strict=True)),
        "flags": sample.flags,
    }
    return {
        "time": f"2026-11-{1 + number // 200:02d}T08:00:00.000000Z",
        "event": "decision",
        "policy": {"name": "strict", "version": "1", "digest": "sha256:1"},
        "model": {"fingerprint": fingerprint},
        "results": [{"item": 0, "response": 0, "verdict": sample.verdict, "subject": subject}],
    }


def log(path: Path, samples: Iterable[Sample], fingerprint: str = FINGERPRINT) -> Path:
    entries = [entry(number, sample, fingerprint) for number, sample in enumerate(samples)]
    path.write_text("".join(json.dumps(one) + "\n" for one in entries))
    return path


def steady(path: Path, count: int = 800, seed: int = 1) -> Path:
    return log(path, islice(stationary(Random(seed)), count))


def report(*words: object) -> Result:
    return CliRunner().invoke(drift.command, ["report", *map(str, words)], standalone_mode=False)


def test_a_log_that_shifts_is_found_and_drawn(tmp_path: Path) -> None:
    random = Random(3)
    samples = [*islice(stationary(random), 1200), *islice(stationary(random, 0.6), 600)]
    page = tmp_path / "report.html"
    done = report(log(tmp_path / "audit.jsonl", samples), "--out", page, "--json")
    found = json.loads(done.output)
    assert (done.return_value, found["samples"]) == (1, 1800)
    accuracy = found["watches"]["accuracy"]
    assert (accuracy["alarm"], accuracy["change"]) == (True, "higher")
    assert 1200 < accuracy["sample"] < 1800
    assert accuracy["time"].startswith("2026-11-0")
    assert not found["watches"]["relevance"]["alarm"]
    text = page.read_text()
    assert "Answers have changed" in text
    assert f"higher, found at image {accuracy['sample']}" in text
    assert text.count('<svg class="chart"') == 9
    with browser() as chromium:
        for width in (360, 1200):
            seen = chromium.open(page, width, "dark")
            assert (seen.requests[1:], seen.complaints, seen.overflow) == ([], [], 0)


def test_a_log_that_is_steady_is_said_to_be(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = report(steady(tmp_path / "audit.jsonl"), "--window", 300, "--out", page)
    assert done.return_value == 0
    assert "800 images, 0 alarms; reference: the first 300 samples" in done.output
    assert "No drift found" in page.read_text()


def test_a_reference_is_what_is_normal(tmp_path: Path) -> None:
    reference = steady(tmp_path / "last-year.jsonl", 900)
    later = log(tmp_path / "audit.jsonl", islice(stationary(Random(4), 0.6), 400))
    done = report(later, "--reference", reference, "--out", tmp_path / "r.html", "--json")
    found = json.loads(done.output)
    assert done.return_value == 1
    assert found["watches"]["accuracy"]["change"] == "higher"
    assert found["reference"] == f"900 samples of {reference}"


def test_decisions_of_another_model_are_left_out_and_counted(tmp_path: Path) -> None:
    old = log(tmp_path / "old.jsonl", islice(stationary(Random(5), 2.0), 300), "sha256:old")
    new = steady(tmp_path / "new.jsonl", 400)
    done = report(old, new, "--window", 200, "--out", tmp_path / "r.html", "--json")
    found = json.loads(done.output)
    assert (done.return_value, found["samples"], found["left_out"]) == (0, 400, 300)


def test_what_cannot_be_told_is_refused(tmp_path: Path) -> None:
    short = report(steady(tmp_path / "audit.jsonl", 100), "--out", tmp_path / "r.html")
    assert "the log has 100 samples" in str(short.exception)
    assert "1050 are needed" in str(short.exception)
    (tmp_path / "text.jsonl").write_text("no\n")
    assert "line 1: this is no JSON object" in str(report(tmp_path / "text.jsonl").exception)
    assert "No such file" in str(report(tmp_path / "none.jsonl").exception)
    assert not (tmp_path / "r.html").exists()


def pair(served: str, second: str, version: str = "2") -> dict[str, Any]:
    """A line of a shadow's file."""
    side = {"name": "strict", "version": "1", "digest": "sha256:1", "fingerprint": FINGERPRINT, "margin": 0.5}
    other = {**side, "version": version, "verdict": second}
    return {"time": "2026-11-30T08:00:00.000+00:00", "served": {**side, "verdict": served}, "shadow": other}


def test_a_shadow_is_counted_by_pairs_of_verdicts(tmp_path: Path) -> None:
    file = tmp_path / "shadow.jsonl"
    lines = [pair("allow", "allow")] * 150 + [pair("allow", "block")] * 50 + [pair("block", "allow", "3")] * 10
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"time": "2026-1')  # the last one was cut
    page = tmp_path / "shadow.html"
    words = ["report", str(file), "--out", str(page)]
    done = CliRunner().invoke(shadow.command, [*words, "--json"], standalone_mode=False)
    first, second = json.loads(done.output)["agreements"]
    assert done.return_value == 0
    assert (first["answers"], first["agreed"]) == (200, 150)
    assert first["outcomes"] == {"allow_allow": 150, "allow_block": 50}
    assert first["ci95"] == pytest.approx([0.686, 0.805], abs=0.001)
    assert (second["outcomes"], second["shadow"]) == ({"block_allow": 10}, "strict 3 (sha256:1) on " + FINGERPRINT[:19])
    text = page.read_text()
    assert "75.0% of 200 answers have the same verdict" in text
    table = CliRunner().invoke(shadow.command, words).output
    assert "75.0% (95%: 68.6 to 80.5) of 200 agree" in table


def test_a_file_that_is_no_shadows_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "shadow.jsonl"
    file.write_text('{"time": "2026-11-30"}\n')
    done = CliRunner().invoke(shadow.command, ["report", str(file)])
    assert "line 1: this is no line of a shadow's file" in str(done.exception)
