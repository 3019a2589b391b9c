"""Runs of a model that has only `overall`: nothing is said of what it was never asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.gating import edit_rows, gate
from bench.runs import make_run
from bench.sets import some_cases, write_set
from medreward.bench.comparing import compare
from medreward.bench.finished import FinishedRun, open_run
from medreward.bench.gate.parity import largest_difference, recorded_logits
from medreward.bench.report.examples import outcomes, worst
from medreward.bench.report.leaderboard import leaderboard
from medreward.bench.report.report import Report
from medreward.bench.rewards import Rewards
from medreward.cli import app
from medreward.cli.in_process import EngineTransport
from medreward.clients import AsyncClient
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Options
from serving import running, settings_for

pytestmark = pytest.mark.slow

CASES = some_cases(60)
OTHERS = DIMENSIONS[:-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "one", CASES, model="one", unanswered=0.1, has=["overall"])
    make_run(folder / "six", CASES, model="six", seed=2)
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[FinishedRun]:
    return [open_run(folder / "one"), open_run(folder / "six")]


def bench(*words: str | Path) -> int:
    code: int = app.main(["bench", *map(str, words)], standalone_mode=False)
    return code


def labelled(dimension: str) -> int:
    return sum(dimension in case.labels for case in CASES)


def test_a_dimension_that_the_model_has_not_has_no_accuracy(runs: list[FinishedRun]) -> None:
    strict = runs[0].summary["strict"]
    for table in (strict["micro"], strict["macro"]):
        for name in OTHERS:
            nothing = {"accuracy": None, "ci95": None, "correct": 0, "ties": 0}
            assert table[name] == {**nothing, "n": labelled(name), "unanswered": labelled(name)}
        assert table["overall"]["accuracy"] > 0.4
    assert 0 < strict["micro"]["overall"]["unanswered"] < labelled("overall")
    assert {row["accuracy"]["accuracy"] for row in strict["organ"].values()} == {None}
    assert runs[0].missing == {*OTHERS}
    assert runs[1].missing == set()


def test_runs_are_compared_on_what_all_have(runs: list[FinishedRun]) -> None:
    found = compare(runs)
    assert [*found["shortcuts"]] == ["overall"]
    assert [run["missing"] for run in found["runs"]] == [[*OTHERS], []]
    alone = compare(runs[1:])
    assert [*alone["shortcuts"]] == [*DIMENSIONS]
    assert f"The model of one has no {', '.join(OTHERS)}" in leaderboard(found)


def test_runs_with_nothing_in_common_are_not_compared(runs: list[FinishedRun], tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", CASES, has=["accuracy"])
    with pytest.raises(ConfigurationError, match="no labelled dimension in common"):
        compare([runs[0], open_run(other)])


@pytest.mark.parametrize("turned", [False, True])
def test_the_report_shows_only_what_was_measured(runs: list[FinishedRun], turned: bool) -> None:
    run, baseline = reversed(runs) if turned else runs
    found = Report.of(run, baseline)
    page = found.page({}, 6)
    rows = {row.name: row for row in found.facts.dimensions}
    assert (rows["accuracy"].figure.accuracy is None, rows["accuracy"].against) == (not turned, None)
    assert rows["overall"].against is not None
    assert f"The model has no {', '.join(OTHERS)}." in page
    assert "measured on overall" not in page


def test_nobody_is_wrong_on_what_was_not_asked(runs: list[FinishedRun]) -> None:
    shown = [{one.dimension for one in outcomes(pair) if one.wrong} for pair in worst(runs[0])]
    assert shown
    assert set.union(*shown) == {"overall"}


def test_a_report_without_overall_has_a_page(tmp_path: Path, runs: list[FinishedRun]) -> None:
    run = open_run(make_run(tmp_path / "other", CASES, has=["accuracy"]))
    assert "Nothing was measured on overall." in Report.of(run, runs[1]).page({}, 3)


def test_the_gate_decides_where_the_policy_needs_what_the_model_has(folder: Path, tmp_path: Path) -> None:
    for candidate, baseline in (("one", "six"), ("six", "one")):
        with pytest.raises(
            ConfigurationError, match=r"the model of .*one has no accuracy, rel.*, which the policy dec"
        ):
            gate("--candidate", folder / candidate, "--baseline", folder / baseline)
    policy = tmp_path / "overall.toml"
    numbers = "alpha = 0.05\nfamily_alpha = 0.02\npower = 0.8\nmax_unanswered = 0.5\n"
    policy.write_text(f'dimensions = ["overall"]\n{numbers}[floors]\noverall = 0.01\n')
    assert gate("--candidate", folder / "one", "--baseline", folder / "six", "--policy", policy) == 0


def test_a_null_among_numbers_is_damage(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", CASES)

    def loses_one(rows: list[dict[str, Any]]) -> None:
        rows[3]["logits"]["B"]["creativity"] = None

    edit_rows(path, loses_one)
    with pytest.raises(ConfigurationError, match="lacks a logit that others have"):
        open_run(path)


def test_numbers_are_compared_where_both_have_them(runs: list[FinishedRun]) -> None:
    one, six = (recorded_logits(next(p for p in run.predictions if p.logits)) for run in runs)
    moved = [None if six is None else (*six[:-1], (six[-1] or 0.0) + 0.5) for six in one]
    assert largest_difference(one, one) == 0.0
    assert largest_difference(moved, one) == pytest.approx(0.5)
    assert largest_difference(six, one) == float("inf")


def test_the_commands_say_what_was_not_measured(
    folder: Path, two_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_set(tmp_path / "data", CASES[:6]), tmp_path / "run"
    assert bench("run", "--data", data, "--model", two_folder, "--out", out) == 0
    assert f"The model has no {', '.join(DIMENSIONS[1:-1])}, so nothing was measured there." in capsys.readouterr().out
    both = ("compare", folder / "one", folder / "six")
    assert bench(*both) == 0
    assert f"The model of one has no {', '.join(OTHERS)}, which is left out for all runs." in capsys.readouterr().out
    people = tmp_path / "people.jsonl"
    rows = [
        {"question_id": case.question_id, "annotator": name, "human_answer": {**case.labels}}
        for case in CASES
        for name in ("anna", "ben")
    ]
    people.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert bench("agreement", people, "--run", folder / "one") == 0
    agreeing = [line.split()[0] for line in capsys.readouterr().out.splitlines() if " one " in line]
    assert {*agreeing} == {"overall"}
    with pytest.raises(ConfigurationError, match="accuracy has no labels, or not every model has it"):
        bench(*both, "--dimension", "accuracy")


async def test_both_ways_to_a_model_leave_the_choice_open(two_folder: Path) -> None:
    case = CASES[0]
    async with running(model=str(two_folder)) as server:
        served = Rewards(AsyncClient(f"http://127.0.0.1:{server.port}"), Options())
        await served.about()
        answer = await served.choose(case)
        await served.aclose()
    here = Rewards(AsyncClient(await EngineTransport.start(settings_for(model=str(two_folder)))), Options())
    assert await here.choose(case) == answer
    await here.aclose()
    assert answer.status == "ok"
    assert {name for name, choice in answer.choices.items() if choice is None} == {*DIMENSIONS[1:-1]}
    assert answer.logits is not None
    assert answer.logits["A"]["creativity"] is None
    assert answer.logits["A"]["overall"] is not None
