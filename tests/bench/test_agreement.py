"""`medreward bench agreement` on files that the tests write."""

import csv
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa, to_table

from bench.gating import edit_rows
from bench.here import medreward
from bench.runs import make_run
from bench.sets import some_cases
from medreward.bench.agreement import agreement
from medreward.bench.annotators import read
from medreward.bench.finished import open_run
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow

CASES = some_cases(120)
SURE = {"anna": 0.95, "ben": 0.85, "cleo": 0.7}


def other(letter: str) -> str:
    return "B" if letter == "A" else "A"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Each has the label as often as sure; a row for each case and annotator."""
    chance = random.Random(3)
    return [
        {
            "question_id": case.question_id,
            "annotator": name,
            "human_answer": {d: a if chance.random() < sure else other(a) for d, a in case.labels.items()},
        }
        for case in CASES
        for name, sure in SURE.items()
    ]


@pytest.fixture(scope="module")
def file(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("people") / "annotators.jsonl", rows)


def written(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def letters(rows: list[dict[str, Any]], name: str, dimension: str) -> list[str]:
    return [row["human_answer"][dimension] for row in rows if row["annotator"] == name]


def test_kappas_are_those_of_statsmodels(file: Path, rows: list[dict[str, Any]]) -> None:
    found = agreement(read(file))
    assert (found["annotators"], found["cases"]) == (["anna", "ben", "cleo"], 120)
    for dimension in DIMENSIONS:
        among = found["dimensions"][dimension]
        table = np.array([[letter == "B" for letter in letters(rows, name, dimension)] for name in SURE]).T.astype(int)
        kappa = fleiss_kappa(aggregate_raters(table)[0])
        assert among["fleiss"] == pytest.approx(kappa, abs=1e-6)
        assert among["krippendorff"] == pytest.approx(1 - (1 - kappa) * 359 / 360, abs=1e-6)
        low, high = among["krippendorff_ci95"]
        assert low < among["krippendorff"] < high
        pair = among["pairs"][0]
        peer = cohens_kappa(to_table(table[:, :2], 2)[0])
        assert (pair["first"], pair["second"], pair["n"]) == ("anna", "ben", 120)
        assert pair["kappa"] == pytest.approx(peer.kappa, abs=1e-6)
        assert pair["kappa_ci95"] == pytest.approx([peer.kappa_low, peer.kappa_upp], abs=1e-6)
        assert sum(among["majority"].values()) == 120
        assert among["majority"]["tie"] == 0


def test_a_model_is_set_beside_the_majority_and_every_annotator(
    file: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = open_run(make_run(tmp_path / "run", CASES, right=0.9, unanswered=0.1, ties=0.1))
    found = agreement(read(file), [run])
    own = found["runs"][0]["dimensions"]["overall"]
    assert (found["runs"][0]["run"], found["runs"][0]["cases"]) == ("run", 120)
    people = {name: letters(rows, name, "overall") for name in SURE}
    majority = ["A" if votes.count("A") > 1 else "B" for votes in zip(*people.values(), strict=True)]
    choices = [prediction.choices["overall"] for prediction in run.predictions]
    for row, reference in ((own["majority"], majority), (own["annotators"]["cleo"], people["cleo"])):
        pairs = list(zip(choices, reference, strict=True))
        credit = sum(1.0 if a == b else 0.5 if a == "tie" else 0.0 for a, b in pairs)
        assert row["n"] == 120
        assert row["agreement"] == pytest.approx(credit / 120, abs=1e-6)
        assert row["unanswered"] == choices.count(None) > 0
        assert row["ci95"][0] < row["agreement"] < row["ci95"][1]
        assert row["kappa"] < 1
    others = found["dimensions"]["overall"]["with_the_others"]
    ben_and_cleo = [a for a, b in zip(people["ben"], people["cleo"], strict=True) if a == b]
    assert others["anna"]["n"] == len(ben_and_cleo)
    assert others["anna"]["agreement"] > others["cleo"]["agreement"]


def test_people_and_a_model_are_held_against_the_same_majorities_on_the_same_cases(tmp_path: Path) -> None:
    """A worked example. Ben and Cleo are split on cases 2 and 3, so Anna and the model are measured on the other four.

    Anna has A B B A against A A B B: 2 of 4 agree, chance alone gives 1/2, kappa 0. The model has A A none B: 3 of 4
    agree, chance alone gives 2/4 x 2/4 + 1/4 x 2/4 = 3/8, kappa (3/4 - 3/8) / (5/8) = 0.6.
    """
    votes = {"anna": "AAABBA", "ben": "AABABB", "cleo": "ABAABB"}
    cases = [replace(case, labels={"overall": side}) for case, side in zip(some_cases(6), "AAAABB", strict=True)]
    path = make_run(tmp_path / "model", cases, right=1)

    def leave_out_the_fifth(rows: list[dict[str, Any]]) -> None:
        rows[4].update(status="too_long", choices=dict.fromkeys(DIMENSIONS), logits=None)

    edit_rows(path, leave_out_the_fifth)
    rows = [
        {"question_id": case.question_id, "annotator": name, "human_answer": {"overall": side}}
        for name, sides in votes.items()
        for case, side in zip(cases, sides, strict=True)
    ]
    found = agreement(read(written(tmp_path / "people.jsonl", rows)), [open_run(path)])
    others = found["dimensions"]["overall"]["with_the_others"]
    figures = ("n", "agreement", "kappa", "unanswered")
    assert [others["anna"][name] for name in figures] == [4, 0.5, 0, 0]
    assert [others["anna"]["runs"]["model"][name] for name in figures] == [4, 0.75, 0.6, 1]
    assert [others["ben"][name] for name in figures] == [3, pytest.approx(2 / 3, abs=1e-6), 0.4, 0]
    assert others["ben"]["runs"]["model"]["n"] == 3
    majority = found["runs"][0]["dimensions"]["overall"]["majority"]
    assert [majority[name] for name in figures] == [6, *(pytest.approx(x, abs=1e-6) for x in (5 / 6, 2 / 3)), 1]


def test_a_run_of_some_of_the_cases_takes_people_along(file: Path, tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "part", CASES[:40], right=0.9))
    found = agreement(read(file), [run])
    assert found["runs"][0]["cases"] == 40
    for row in found["dimensions"]["overall"]["with_the_others"].values():
        assert row["n"] == row["runs"]["part"]["n"] <= 40
    assert found["dimensions"]["overall"]["cases"] == 120


def test_a_spreadsheet_with_gaps_says_the_same_as_lines(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    some = [dict(row) for row in rows]
    some[4] = some[4] | {"human_answer": {"overall": "tie", "accuracy": "A"}}
    del some[6]
    sheet = tmp_path / "people.CSV"
    with sheet.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.DictWriter(out, ["annotator", "question_id", "comment", *DIMENSIONS])
        writer.writeheader()
        for row in some:
            about = {
                "annotator": row["annotator"],
                "question_id": row["question_id"],
                "comment": "two\nlines, one cell",
            }
            writer.writerow(about | row["human_answer"])
    found = agreement(read(sheet))
    assert found == agreement(read(written(tmp_path / "people.jsonl", some)))
    assert found["dimensions"]["overall"]["cases"] == 120
    assert found["dimensions"]["overall"]["fleiss_cases"] == 119
    assert found["dimensions"]["relevance"]["fleiss_cases"] == 118


def test_the_same_id_in_two_organs_needs_its_organ(tmp_path: Path) -> None:
    cases = some_cases(6)
    cases[-1] = replace(cases[-1], question_id=cases[0].question_id)
    run = open_run(make_run(tmp_path / "run", cases, right=1))
    rows: list[dict[str, Any]] = [
        {"question_id": case.question_id, "organ": case.organ, "annotator": name, "human_answer": {**case.labels}}
        for case in cases
        for name in ("anna", "ben")
    ]
    found = agreement(read(written(tmp_path / "with.jsonl", rows)), [run])
    assert found["runs"][0]["dimensions"]["overall"]["majority"]["agreement"] == 1
    without = [{key: value for key, value in row.items() if key != "organ"} for row in rows[2:]]
    with pytest.raises(ConfigurationError, match=r"several organs of .*; add `organ`"):
        agreement(read(written(tmp_path / "without.jsonl", without)), [run])
    elsewhere = [row | {"question_id": "unknown-" + row["question_id"]} for row in rows]
    with pytest.raises(ConfigurationError, match="holds none of the annotated cases"):
        agreement(read(written(tmp_path / "elsewhere.jsonl", elsewhere)), [run])


RIGHT = {"question_id": "1", "annotator": "anna", "human_answer": {"overall": "A"}}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "line 2 must be a JSON object with an object human_answer"),
        (RIGHT | {"human_answer": "A"}, "line 2 must be a JSON object with an object human_answer"),
        (RIGHT | {"annotator": ""}, "line 2 has no annotator"),
        (RIGHT | {"question_id": None}, "line 2 has no question_id"),
        (RIGHT | {"human_answer": {"overall": "C"}}, "line 2: overall is 'C'; it must be A, B or tie"),
        (RIGHT | {"human_answer": {"beauty": "A"}}, "line 2: 'beauty' is not one of the six dimensions"),
        (RIGHT, "line 2: anna has already rated 1"),
        (RIGHT | {"question_id": "2"}, "agreement needs two or more"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(row: Mapping[str, Any] | list[Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "people.jsonl"
    file.write_text(f"{json.dumps(RIGHT)}\n{json.dumps(row)}\n")
    with pytest.raises(ConfigurationError, match=message):
        read(file)


async def test_the_command_prints_tables_and_json(file: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "model", CASES)
    done = await medreward("bench", "agreement", file, "--run", run)
    assert done.code == 0, done
    for words in (
        "120 cases, 3 annotators: anna, ben, cleo",
        "Fleiss' kappa",
        "majority without anna",
        "majority of all",
        "model",
    ):
        assert words in done.out
    as_json = await medreward("bench", "agreement", file, "--json")
    assert set(json.loads(as_json.out)["dimensions"]) == {*DIMENSIONS}
    missing = await medreward("bench", "agreement", tmp_path / "none.jsonl")
    assert (missing.code, missing.err.count("\n")) == (2, 1)
