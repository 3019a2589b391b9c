"""`medreward bench compare` on runs that the tests make."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from bench.here import medreward
from bench.runs import make_run
from bench.sets import ORGANS, some_cases
from medreward.bench.cases import CONSTRUCTED, Case
from medreward.bench.comparing import compare
from medreward.bench.finished import FinishedRun, open_run
from medreward.bench.report.report import Report
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow

CASES = 200


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    kinds = ("yes or no", "open")
    return [
        replace(case, question_type=kinds[n % 2], department="radiology" if n % 3 else None, evidence=CONSTRUCTED)
        for n, case in enumerate(some_cases(CASES))
    ]


@pytest.fixture(scope="module")
def folder(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    for n, (name, right) in enumerate({"good": 0.9, "alike": 0.88, "poor": 0.55}.items()):
        make_run(made / name, cases, right=right, ties=0.04, unanswered=0.03, seed=n, model=f"model {name}")
    return made


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[FinishedRun]:
    return [open_run(folder / name) for name in ("good", "alike", "poor")]


@pytest.fixture(scope="module")
def compared(runs: list[FinishedRun]) -> dict[str, Any]:
    return compare(runs)


def test_every_accuracy_is_that_of_the_runs_own_tables(compared: dict[str, Any], runs: list[FinishedRun]) -> None:
    for run, found in zip(runs, compared["runs"], strict=True):
        strict = run.summary["strict"]
        for dimension in DIMENSIONS:
            row = found["dimensions"][dimension]
            for name in ("n", "correct", "ties", "unanswered"):
                assert row[name] == strict["micro"][dimension][name]
            assert row["n"] == CASES
            assert row["unanswered"] > 0
            assert row["accuracy"] == pytest.approx(strict["micro"][dimension]["accuracy"], abs=1e-6)
            assert row["ci95"] == pytest.approx(strict["micro"][dimension]["ci95"], abs=1e-6)  # no image is shared
            assert {name: row["macro"][name] for name in strict["macro"][dimension]} == strict["macro"][dimension]
            for part in ("organ", "department", "question_type"):
                assert row[part] == {name: given[dimension] for name, given in strict[part].items()}
                assert row[part]
            low, high = row["bootstrap95"]
            assert low < row["accuracy"] < high


def test_every_pair_of_runs_is_tested_on_every_dimension_and_corrected(
    compared: dict[str, Any], runs: list[FinishedRun]
) -> None:
    credit = {run.name: run.column("relevance").credits for run in runs}
    rows = [row for row in compared["pairs"] if row["dimension"] == "relevance"]
    assert len(compared["pairs"]) == 6 * 3
    assert [(row["first"], row["second"]) for row in rows] == [("good", "alike"), ("good", "poor"), ("alike", "poor")]
    for row in rows:
        first, second = credit[row["first"]], credit[row["second"]]
        better, worse = int((first > second).sum()), int((first < second).sum())
        assert (row["better"], row["worse"]) == (better, worse)
        assert row["p"] == pytest.approx(mcnemar([[0, better], [worse, 0]], exact=True).pvalue)
        assert row["difference"] == pytest.approx(first.mean() - second.mean(), abs=1e-6)
        assert row["ci95"][0] < row["difference"] < row["ci95"][1]
        assert row["odds_ratio"] == pytest.approx(better / worse, abs=1e-6)
    p = [row["p"] for row in rows]
    assert [row["holm"] for row in rows] == pytest.approx(multipletests(p, method="holm")[1])
    assert [row["bonferroni"] for row in rows] == pytest.approx(multipletests(p, method="bonferroni")[1])


def test_runs_that_cannot_be_told_apart_share_rank_and_letter(compared: dict[str, Any]) -> None:
    good, alike, poor = (run["dimensions"]["overall"] for run in compared["runs"])
    assert (good["rank"], good["group"]) == (alike["rank"], alike["group"]) == (1, "a")
    assert (poor["rank"], poor["group"]) == (3, "b")
    tests = compared["all_runs"]["overall"]
    assert max(test["p"] for test in tests.values()) < 1e-6


def test_what_needs_no_understanding_stands_beside_the_runs(compared: dict[str, Any], runs: list[FinishedRun]) -> None:
    labels = runs[0].column("overall").labels
    most = max((labels == 1).mean(), (labels == -1).mean())
    assert compared["shortcuts"]["overall"]["position"] == pytest.approx(most, abs=1e-6)
    good, _, poor = (run["dimensions"]["overall"]["over_shortcuts"]["position"] for run in compared["runs"])
    assert good["ci95"][0] > 0.2
    assert poor["ci95"][0] < 0.1


def test_runs_that_are_alike_have_no_test_over_all_and_no_smallest_difference(
    cases: list[Case], tmp_path: Path
) -> None:
    same = [open_run(make_run(tmp_path / name, cases)) for name in ("one", "two", "three")]
    found = compare(same)
    assert found["all_runs"]["overall"] == {"cochran_q": None, "friedman": None, "anova": None}
    pair = found["pairs"][0]
    assert (pair["p"], pair["odds_ratio"], pair["smallest_difference"]) == (1, None, None)
    assert [run["dimensions"]["overall"]["rank"] for run in found["runs"]] == [1, 1, 1]
    json.dumps(found, allow_nan=False)


def test_cases_that_share_an_image_widen_every_interval(cases: list[Case], tmp_path: Path) -> None:
    """The same answers, but every image stands behind four cases with the same label."""
    shared = [replace(cases[n // 4 * 4], question_id=case.question_id) for n, case in enumerate(cases)]
    clustered = [replace(case, image=cases[n].image) for n, case in enumerate(shared)]
    found = {}
    for name, some in {"alone": clustered, "shared": shared}.items():
        pair = [make_run(tmp_path / name / run, some, seed=n, right=0.7) for n, run in enumerate(("a", "b"))]
        for run in pair:
            rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
            rows = [{**rows[n // 4 * 4], "question_id": row["question_id"]} for n, row in enumerate(rows)]
            (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[name] = compare([open_run(run) for run in pair])
    for interval in ("ci95", "bootstrap95"):
        widths = [_width(one["runs"][0]["dimensions"]["overall"][interval]) for one in found.values()]
        assert widths[1] / widths[0] == pytest.approx(2, abs=0.25)
    alone, shared_images = (one["pairs"][0] for one in found.values())
    assert _width(shared_images["ci95"]) / _width(alone["ci95"]) == pytest.approx(2, abs=0.25)
    assert shared_images["smallest_difference"] > 1.5 * alone["smallest_difference"]
    assert (alone["design_effect"], shared_images["design_effect"]) == (1, pytest.approx(4, abs=0.1))


def test_a_figure_has_one_interval_and_one_smallest_difference_wherever_it_stands(
    cases: list[Case], tmp_path: Path
) -> None:
    """Four cases share an image, and ties are among the answers: that is where two ways of computing part."""
    shared = [replace(case, image=cases[n // 4 * 4].image) for n, case in enumerate(cases)]
    runs = [open_run(make_run(tmp_path / str(n), shared, seed=n, right=0.7, ties=0.1)) for n in range(2)]
    compared, page = compare(runs), Report.of(runs[0], runs[1])
    pairs = {row["dimension"]: row for row in compared["pairs"]}
    for row in page.facts.dimensions:
        strict = runs[0].summary["strict"]["micro"][row.name]
        assert row.against
        shown = (row.figure.low, row.figure.high)
        assert compared["runs"][0]["dimensions"][row.name]["ci95"] == strict["ci95"] == pytest.approx(shown, abs=1e-6)
        assert row.against.smallest == pytest.approx(pairs[row.name]["smallest_difference"], abs=1e-6)


def _width(interval: list[float]) -> float:
    return interval[1] - interval[0]


def test_runs_on_other_benchmarks_are_refused(cases: list[Case], folder: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", some_cases(CASES, seed=3))
    with pytest.raises(ConfigurationError, match="a run on other data"):
        compare([open_run(folder / "good"), open_run(other)])
    part = make_run(tmp_path / "part", cases[:50])
    about = json.loads((part / "run.json").read_text())
    about["data_digest"] = open_run(folder / "good").digest
    (part / "run.json").write_text(json.dumps(about))
    with pytest.raises(ConfigurationError, match=r"other cases of the data \(50\) than .* \(200\)"):
        compare([open_run(folder / "good"), open_run(part)])


async def test_the_command_prints_a_table_json_and_csv(folder: Path, tmp_path: Path) -> None:
    runs = [folder / name for name in ("poor", "good", "alike")]
    done = await medreward("bench", "compare", *runs, "--csv", tmp_path / "all.csv")
    assert done.code == 0, done
    assert "200 cases, 200 images; labels: 200 constructed" in done.out
    order = [line.split()[0] for line in done.out.splitlines() if line.strip().startswith(("poor", "good", "alike"))]
    assert order[2:3] == ["poor"]
    for words in ("(length only)", "(position only)", "Cochran's Q", "Holm", "< 0.001"):
        assert words in done.out
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    parts = 2 + len(ORGANS) + 1 + 2
    assert len(rows) == 3 * 6 * parts
    assert {row["name"] for row in rows if row["part"] == "organ"} == {*ORGANS}
    as_json = await medreward("bench", "compare", *runs, "--json")
    compared = json.loads(as_json.out)
    first = compared["runs"][0]["dimensions"]["accuracy"]
    assert rows[0]["run"] == "poor"
    assert (float(rows[0]["accuracy"]), rows[0]["group"]) == (first["accuracy"], first["group"])


async def test_what_cannot_be_compared_is_one_line_and_two(folder: Path, tmp_path: Path) -> None:
    for runs, words in {
        (): "name two runs or more",
        (folder / "good",): "name two runs or more",
        (folder / "good", tmp_path): "is not a finished run",
        (folder / "good", folder / "poor", "--csv", tmp_path): "Is a directory",
    }.items():
        done = await medreward("bench", "compare", *runs)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
        assert words in done.err
