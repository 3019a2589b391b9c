"""`medreward bench gate --url`: the endpoints are asked whether they serve what was measured, and how fast."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.gating import decided, edit, edit_rows, gate, rows_of, statuses
from bench.sets import some_cases, write_set
from clients.canned import Answer, Request, canned, right_answer
from commands import Served, serving
from medreward.artifacts.evidence import policy_file
from medreward.bench.cases import Case
from medreward.bench.gate.smoke import attempts, smoke
from medreward.bench.layout import read
from medreward.cli import app
from medreward.clients import AsyncClient, Patience
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow

CASES = 320


def bench_run(data: Path, out: Path, *flags: str) -> Path:
    command = ["bench", "run", "--data", str(data), "--out", str(out), *flags]
    assert app.main(command, standalone_mode=False) == 0
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose labels are three times in four what the fake model chooses."""
    folder = tmp_path_factory.mktemp("set")
    unlabelled = write_set(folder / "unlabelled", some_cases(CASES))
    chosen = rows_of(bench_run(unlabelled, folder / "run", "--model", "fake"))
    chance = random.Random(0)

    def labelled(case: Case, choices: dict[str, str]) -> Case:
        other = {"A": "B", "B": "A"}
        labels = {d: choices[d] if chance.random() < 0.75 else other[choices[d]] for d in DIMENSIONS}
        return replace(case, labels=labels)

    cases = read(unlabelled).cases
    return write_set(folder / "set", [labelled(case, row["choices"]) for case, row in zip(cases, chosen, strict=True)])


def policy(folder: Path, load: str) -> Path:
    """The default one, but for the load."""
    shipped = policy_file("default").read_text()
    file = folder / "policy.toml"
    file.write_text(shipped.split("[load]")[0].replace("cases = 32", "cases = 4") + load)
    return file


#: A busy machine may be slower now than a moment ago.
PATIENT = "[load]\nrate = 8\nseconds = 0.5\nrounds = 3\nquantile = 0.5\nmax_ratio = 1000\nmax_failed = 0.5\n"
STRICT = "[load]\nrate = 8\nseconds = 0.25\nrounds = 5\nquantile = 0.5\nmax_ratio = 1.5\nmax_failed = 0.9\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("server"), "--fake-delay-ms", "5") as served:
        yield served


@pytest.fixture(scope="module")
def run(data: Path, server: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench_run(data, tmp_path_factory.mktemp("runs") / "run", "--url", server.url)


def test_a_model_served_as_it_was_measured_is_promoted(run: Path, server: Served, tmp_path: Path) -> None:
    flags = "--candidate", run, "--baseline", run, "--policy", policy(tmp_path, PATIENT), "--out", tmp_path
    assert gate(*flags, "--url", server.url, "--baseline-url", server.url) == 0
    found = statuses(tmp_path)
    wanted = {"parity/run", "parity/baseline", "smoke/afterwards", "load/failed", "load/latency", "load/throughput"}
    assert {name for name in wanted if found[name] == "pass"} == wanted
    assert {found[f"smoke/{attempt.name}"] for attempt in attempts()} == {"pass"}
    assert decided(tmp_path)["endpoints"] == {"candidate": server.url, "baseline": server.url}


def test_a_slow_model_is_refused_and_the_figure_is_named(run: Path, server: Served, tmp_path: Path) -> None:
    with serving(tmp_path, "--fake-delay-ms", "300") as slow:
        flags = "--candidate", run, "--baseline", run, "--policy", policy(tmp_path, STRICT), "--out", tmp_path
        assert gate(*flags, "--url", slow.url, "--baseline-url", server.url) == 1
    assert "load/latency" in {name for name, status in statuses(tmp_path).items() if status == "fail"}
    assert any(reason.startswith("load/latency: latency") for reason in decided(tmp_path)["reasons"])


def test_an_endpoint_that_does_not_give_the_measured_numbers_is_refused(
    run: Path, server: Served, tmp_path: Path
) -> None:
    """A canary whose scores are shifted."""
    shifted = tmp_path / "run"
    shutil.copytree(run, shifted)

    def shift(listed: list[dict[str, Any]]) -> None:
        for row in listed:
            for six in row["logits"].values():
                six.update({dimension: six[dimension] + 0.1 for dimension in DIMENSIONS})

    edit_rows(shifted, shift)
    assert gate("--candidate", shifted, "--policy", policy(tmp_path, ""), "--url", server.url) == 1
    assert [name for name, status in statuses(shifted).items() if status == "fail"] == ["parity/run"]


def test_an_endpoint_of_another_model_is_no_decision(run: Path, server: Served, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    edit(other / "run.json", lambda about: about["model"].update(fingerprint="sha256:other"))
    with pytest.raises(ConfigurationError, match="is a run of sha256:other"):
        gate("--candidate", other, "--url", server.url)
    with pytest.raises(ConfigurationError, match="--baseline-url needs"):
        gate("--candidate", run, "--baseline-url", server.url)


async def test_a_server_that_takes_anything_fails_the_smoke() -> None:
    def agreeable(request: Request) -> Answer:
        request.headers.setdefault("x-request-id", "")
        return right_answer(request) if b'"items"' in request.body else (200, {}, b"{}")

    async with canned(agreeable) as server, AsyncClient(server.url, patience=Patience(0)) as client:
        found = {check.name: check.status for check in await smoke(client, server.url, None)}
    assert found["smoke/decompression-bomb"] == found["smoke/not-json"] == "fail"
    assert found["smoke/afterwards"] == "pass"
