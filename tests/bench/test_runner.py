"""`medreward bench run` on a model: every case asked once, the same files however often the run was ended."""

import asyncio
import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.here import medreward_apart as medreward
from bench.sets import some_cases, write_set
from clients.canned import Answer, Canned, Request, canned, problem, right_answer
from clients.processes import Process
from commands import CLEAN, MEDREWARD, serving
from keyring import KeysFile
from medreward.cli import app, bench
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS
from waiting import until

pytestmark = pytest.mark.slow

CASES = 60


def bench_run(data: Path, out: Path, url: str, *flags: str) -> tuple[str | Path, ...]:
    return ("bench", "run", "--data", data, "--out", out, "--url", url, "--concurrency", "4", *flags)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def scored(request: Request) -> Answer:
    """Each text has logits of its own, some answers get the same ones, and one cannot be scored."""
    status, headers, body = right_answer(request)
    if request.method != "POST":
        return status, headers, body
    reply = msgspec.json.decode(body)
    for result in reply["results"]:
        item = request.items[result["item"]]
        text = item["responses"][result["response"]]
        if "7" in item["question"]:
            text = item["question"]  # a tie
        if item["question"] == "What is seen in 11?" and result["response"]:
            error = {"code": "too_long", "message": "it is", "field": ""}
            result |= dict.fromkeys(("scores", "logits", "reward")) | {"status": "error", "error": error}
            continue
        digest = hashlib.sha256(text.encode()).digest()
        result["logits"] = {dimension: digest[n] / 7 for n, dimension in enumerate(DIMENSIONS)}
    return status, headers, msgspec.json.encode(reply)


def asked(server: Canned) -> list[str]:
    return [item["question"] for request in server.asked for item in request.items]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data"), some_cases(CASES))


@dataclass
class Fatal:
    """Kills the run that asks, at its question number `after`. Answers overtake each other."""

    after: int = 0
    count: int = 0
    process: asyncio.subprocess.Process | None = None
    server: Canned | None = None

    def __call__(self, request: Request) -> Answer:
        if request.method == "POST" and self.server:
            self.count += 1
            self.server.pause_s = 0.0 if self.count % 3 else 0.03
            if self.process and self.count >= self.after:
                self.process.kill()
                self.process = None
        return scored(request)


async def test_a_run_that_is_killed_again_and_again_ends_in_the_same_files_and_asks_no_recorded_case_twice(
    data: Path, tmp_path: Path
) -> None:
    async with canned(scored) as server:
        done = await medreward(*bench_run(data, tmp_path / "whole", server.url))
        assert done.code == 0, done
        assert sorted(asked(server)) == sorted(f"What is seen in {n}?" for n in range(CASES))

    chance = random.Random(8)
    fatal, out = Fatal(), tmp_path / "broken"
    journal = out / "predictions.part.jsonl"
    recorded: set[str] = set()
    async with canned(fatal) as fatal.server:
        server = fatal.server
        for first in (1, 1, 1, 9):
            fatal.after, fatal.count = chance.randint(first, 13), 0
            server.requests.clear()
            running = await asyncio.create_subprocess_exec(
                MEDREWARD, *map(str, bench_run(data, out, server.url)), env=CLEAN
            )
            fatal.process = running
            assert await running.wait() == -9
            await until(lambda: server.open == 0)  # nothing of this run is read in the next one's time
            assert recorded.isdisjoint(asked(server))
            recorded = {f"What is seen in {line['question_id'][5:]}?" for line in lines(journal)}
            assert not (out / "summary.json").exists()
        assert recorded
        with journal.open("ab") as file:
            file.write(b'{"question_id": "case-5", "org')  # a line that was cut off
        server.requests.clear()
        done = await medreward(*bench_run(data, out, server.url))
        assert done.code == 0, done
        assert sorted([*recorded, *asked(server)]) == sorted(f"What is seen in {n}?" for n in range(CASES))
    for name in ("predictions.jsonl", "summary.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not journal.exists()


async def test_the_files_say_what_was_answered(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    async with canned(scored) as server:
        done = await medreward(*bench_run(data, out, server.url), "--json")
        again = await medreward(*bench_run(data, out, server.url), "--json")
        assert len(asked(server)) == CASES
    assert (done.code, again.code) == (0, 0)
    assert done.out == again.out
    summary = json.loads(done.out)
    assert summary == json.loads((out / "summary.json").read_text())
    cases = {case.question_id: case for case in some_cases(CASES)}
    rows = lines(out / "predictions.jsonl")
    assert [row["question_id"] for row in rows] == [f"case-{n}" for n in range(CASES)]
    for row in rows:
        assert set(row) == {"question_id", "organ", "department", "status", "choices", "logits"}
        assert row["organ"] == cases[row["question_id"]].organ
        if row["question_id"] == "case-11":
            assert row["status"] == "too_long"
            assert row["logits"] is None
            assert row["choices"] == dict.fromkeys(DIMENSIONS)
            continue
        assert row["status"] == "ok"
        for dimension in DIMENSIONS:
            a, b = (row["logits"][side][dimension] for side in ("A", "B"))
            assert row["choices"][dimension] == ("tie" if a == b else "A" if a > b else "B")
    overall = summary["strict"]["micro"]["overall"]
    choices = [row["choices"]["overall"] for row in rows]
    labels = [cases[row["question_id"]].labels["overall"] for row in rows]
    correct = sum(map(str.__eq__, labels, map(str, choices)))
    ties = choices.count("tie")
    assert ties > 5
    assert overall == overall | {"n": CASES, "correct": correct, "ties": ties, "unanswered": 1}
    assert overall["accuracy"] == pytest.approx((correct + ties / 2) / CASES, abs=1e-6)
    assert set(summary["official"]) == {"brain", "lung", "upper_limb"}
    run = json.loads((out / "run.json").read_text())
    assert run["model"]["fingerprint"] == run["fingerprint"] == "sha256:a"
    assert run["runtime"] == "fake/cpu/fp32"
    assert run["data_digest"].startswith("sha256:")
    assert {"settings", "versions", "totals"} <= set(run)
    assert not {"torch", "onnxruntime"} & set(run["versions"])  # what the server runs in is not known here
    assert "cpu" not in run


async def test_another_model_data_or_setting_is_another_run(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def other_model(request: Request) -> Answer:
        return right_answer(request, fingerprint="sha256:b")

    other_data = write_set(tmp_path / "other", some_cases(3, seed=5))
    async with canned(scored) as server, canned(other_model) as other:
        assert (await medreward(*bench_run(data, out, server.url, "--limit", "5"))).code == 0
        before = (out / "predictions.jsonl").read_bytes()
        for word, command in {
            "model (fingerprint)": bench_run(data, out, other.url, "--limit", "5"),
            "data_digest": bench_run(other_data, out, server.url, "--limit", "5"),
            "settings (limit)": bench_run(data, out, server.url),
            "settings (too_long)": bench_run(data, out, server.url, "--limit", "5", "--too-long", "cut_middle"),
            "holds files that are not a run's": bench_run(data, data, server.url),
        }.items():
            done = await medreward(*command)
            assert (done.code, done.out) == (2, ""), done
            assert word in done.err
            assert done.err.count("\n") == 1
        assert len(asked(server)) == 5
    assert (out / "predictions.jsonl").read_bytes() == before


async def test_a_server_that_goes_away_stops_the_run_which_then_goes_on(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    count = 0

    def overloaded_after_nine(request: Request) -> Answer:
        nonlocal count
        count += request.method == "POST"
        return scored(request) if count < 10 or request.method != "POST" else problem(503, "overloaded")

    async with canned(overloaded_after_nine) as server:
        done = await medreward(*bench_run(data, out, server.url, "--retry-seconds", "0"))
        assert done.code == 2, done
        assert "overloaded" in done.err
    recorded = len(lines(out / "predictions.part.jsonl"))
    assert recorded == 9
    async with canned(scored) as server:
        assert (await medreward(*bench_run(data, out, server.url))).code == 0
        assert len(asked(server)) == CASES - recorded


async def test_a_set_whose_figures_would_be_wrong_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", some_cases(6))
    (folder / "pair_gt_all" / "parquet" / "lung.parquet").unlink()
    async with canned(scored) as server:
        done = await medreward(*bench_run(folder, tmp_path / "run", server.url))
        assert server.requests == []
    assert done.code == 2
    assert "lung.parquet" in done.err
    assert not (tmp_path / "run").exists()


async def test_a_model_here_or_on_a_server_over_either_door_gives_the_same_predictions(
    data: Path, tmp_path: Path
) -> None:
    server = Process(tmp_path, ("--model", "fake"))
    await asyncio.to_thread(server.start)
    try:
        ways = {
            "rest": ("--url", server.url("http")),
            "grpc": ("--url", server.url("grpc")),
            "here": ("--model", "fake"),
        }
        for way, flags in ways.items():
            done = await medreward("bench", "run", "--data", data, "--out", tmp_path / way, *flags)
            assert done.code == 0, done
            assert f"{CASES} cases ({CASES} ok)" in done.out
    finally:
        server.kill()
    rest, grpc, here = ((tmp_path / way / "predictions.jsonl").read_bytes() for way in ways)
    assert rest == grpc == here


async def test_a_server_with_keys_is_asked_with_one(data: Path, tmp_path: Path) -> None:
    key = KeysFile(tmp_path / "keys.jsonl").new()
    with serving(tmp_path, "--keys-file", str(tmp_path / "keys.jsonl")) as server:
        without = await medreward(*bench_run(data, tmp_path / "without", server.url))
        assert (without.code, "unauthenticated" in without.err) == (2, True)
        assert (await medreward(*bench_run(data, tmp_path / "run", server.url), MEDREWARD_KEY=key)).code == 0
    assert all(row["status"] == "ok" for row in lines(tmp_path / "run" / "predictions.jsonl"))


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "NEEDED", ("pyarrow", "not_installed_here"))
    with pytest.raises(ConfigurationError, match=r"needs not_installed_here, which is not installed; run .*\[bench\]'"):
        app.main(["bench", "check", "phantom"], standalone_mode=False)


async def test_what_answers_is_named_once_and_there(data: Path, tmp_path: Path) -> None:
    base: tuple[str | Path, ...] = ("bench", "run", "--data", data, "--out", tmp_path / "run")
    flag_wins = (*base, "--out", tmp_path / "one", "--limit", "1", "--model", "fake")
    done = await medreward(*flag_wins, MEDREWARD_JUDGE="http://127.0.0.1:9/v1")
    assert done.code == 0, done
    for flags, word in {
        (): "name exactly one of",
        ("--model", "fake", "--judge", "http://127.0.0.1:9/v1"): "name exactly one of",
        ("--judge", "http://127.0.0.1:9/v1"): "--judge-model",
        ("--url", "ftp://x"): "must begin with",
        ("--url", "http://127.0.0.1:9"): "unreachable",
        ("--judge", "http://127.0.0.1:9/v1", "--judge-model", "x"): "cannot reach http://127.0.0.1:9/v1",
    }.items():
        done = await medreward(*base, *flags)
        assert (done.code, done.err.count("\n")) == (2, 1), done
        assert word in done.err
