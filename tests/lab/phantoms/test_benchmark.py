"""The benchmark made of phantoms."""

import json
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from medreward.lab.phantoms.benchmark import Case, cases, digest, write
from medreward.lab.phantoms.draw import REGIONS
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow

DIGEST_OF_26 = "sha256:713de281b7ef1fbf561f8baffc49aa51cc271bc8a29f53034ecdb23debcf7c8c"


@pytest.fixture(scope="module")
def made() -> list[Case]:
    return list(cases())


def test_the_digest_is_the_same_on_every_machine() -> None:
    assert digest(cases(0, 26)) == DIGEST_OF_26


def test_another_seed_gives_another_benchmark() -> None:
    assert digest(cases(1, 26)) != DIGEST_OF_26


def test_each_region_has_its_thirty_cases_and_no_case_is_there_twice(made: list[Case]) -> None:
    assert Counter(case.organ for case in made) == dict.fromkeys(REGIONS, 30)
    assert len({case.question_id for case in made}) == len({case.phantom.seed for case in made}) == 390


def test_either_answer_is_the_better_one_equally_often(made: list[Case]) -> None:
    for dimension in DIMENSIONS:
        share = sum(case.human_answer[dimension] == "A" for case in made) / len(made)
        assert 0.45 <= share <= 0.55, dimension


def test_the_longer_answer_is_not_the_better_one(made: list[Case]) -> None:
    for dimension in DIMENSIONS:
        wins = [(len(case.answer1) > len(case.answer2)) is (case.human_answer[dimension] == "A") for case in made]
        assert 0.4 <= sum(wins) / len(wins) <= 0.6, dimension


def test_part_of_the_cases_is_of_held_out_families_and_wordings(made: list[Case]) -> None:
    assert 30 <= sum(case.held_out_family for case in made) <= 150
    assert 30 <= sum(case.held_out_phrasing for case in made) <= 150


def test_the_official_layout_is_written(tmp_path: Path) -> None:
    written = write(tmp_path, 0, 26)
    again = list(cases(0, 26))
    assert written == digest(again)
    for organ in REGIONS:
        mine = [case for case in again if case.organ == organ]
        lines = (tmp_path / "pair_gt_all" / f"{organ}.jsonl").read_text().splitlines()
        table = pyarrow.parquet.read_table(tmp_path / "pair_gt_all" / "parquet" / f"{organ}.parquet").to_pylist()
        assert [json.loads(line)["human_answer"] for line in lines] == [case.human_answer for case in mine]
        assert [row["question_id"] for row in table] == [case.question_id for case in mine]
        assert {row["modality_type"] for row in table} == {organ}
        assert [(row["answer1_text"], row["answer2_text"]) for row in table] == [(c.answer1, c.answer2) for c in mine]
        assert all(
            np.array_equal(np.asarray(Image.open(BytesIO(row["image"]["bytes"]))), case.phantom.pixels)
            for row, case in zip(table, mine, strict=True)
        )
