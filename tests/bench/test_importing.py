"""Other data sets into the format."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pictures
from bench.here import Done, medreward
from medreward.bench.cases import Case, DataSet
from medreward.bench.importing import Pair, import_pairs
from medreward.bench.layout import read
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow


def write_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with an image in it."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(pictures.png())
    return folder


async def imported(layout: str, source: Path, out: Path, *flags: str) -> list[Case]:
    done = await medreward("bench", "import", source, out, "--layout", layout, *flags)
    assert done.code == 0, done
    found = read(out)
    assert found.fatal == []
    return list(found.cases)


def better(case: Case) -> str:
    (letter,) = {*case.labels.values()}
    return case.answers["AB".index(letter)]


async def test_constructed_pairs_keep_their_dimensions_and_say_what_they_are(source: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "set": "some",
            "image": "images/a.png",
            "question": f"Why {n}?",
            "good": f"good {n}",
            "bad": f"bad {n}",
            "kind": "accuracy",
            "dims": ["overall", "accuracy"],
            "region13": "upper_limb" if n % 2 else None,
        }
        for n in range(40)
    ]
    file = write_lines(source / "pairs.jsonl", rows)
    cases = await imported("pairs", file, tmp_path / "out")
    assert len(cases) == 40
    assert {case.organ for case in cases} == {"upper_limb", "unknown"}
    assert {case.evidence for case in cases} == {"constructed"}
    assert {tuple(case.labels) for case in cases} == {("accuracy", "overall")}
    assert all(better(case).startswith("good") for case in cases)
    assert all(case.image == pictures.png() for case in cases)
    assert 8 < sum(case.labels["overall"] == "A" for case in cases) < 32
    first, again, other = (
        DataSet([pair.case(seed) for pair in import_pairs("pairs", file, seed)]).digest for seed in (0, 0, 1)
    )
    assert first == again != other
    table = pq.read_table(tmp_path / "out" / "pair_gt_all" / "parquet" / "upper_limb.parquet")
    assert table.column("question_type").to_pylist() == ["accuracy"] * 20
    run = await medreward(
        "bench", "run", "--data", tmp_path / "out", "--out", tmp_path / "run", "--model", "fake", "--json"
    )
    assert json.loads((tmp_path / "run" / "run.json").read_text())["evidence"] == {"constructed": 40}
    assert json.loads(run.out)["strict"]["micro"]["creativity"]["accuracy"] is None


async def test_questions_get_a_wrong_answer_that_is_right_elsewhere_or_none_at_all(
    source: Path, tmp_path: Path
) -> None:
    asked = [
        ("Is it normal?", "Yes"),
        ("Which organ?", "Liver"),
        ("Which organ?", "lung"),
        ("which organ", "Lung."),
        ("Asked but once?", "So"),
    ]
    rows = [
        {"id": f"q{n}", "image": "images/a.png", "question": question, "answer": answer, "region13": "lung"}
        for n, (question, answer) in enumerate(asked)
    ]
    cases = await imported("questions", write_lines(source / "qa.jsonl", rows), tmp_path / "out")
    wrong = {case.question_id: next(text for text in case.answers if text != better(case)) for case in cases}
    assert {case.question_id: better(case) for case in cases} == {f"q{n}": asked[n][1] for n in range(4)}
    assert wrong["q0"] == "No"
    assert wrong["q1"] in ("lung", "Lung.")
    assert wrong["q2"] == wrong["q3"] == "Liver"
    assert {tuple(case.labels) for case in cases} == {("accuracy", "overall")}
    assert {case.evidence for case in cases} == {"constructed"}


async def test_vl_rewardbench(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"VLFeedback-{n}",
            "query": "What is it?",
            "response": [f"{n} one", f"{n} two"],
            "image": {"bytes": pictures.png(n), "path": None},
            "human_ranking": [0, 1] if n % 2 else [1, 0],
            "models": ["a", "b"],
            "query_source": "RLAIF-V",
        }
        for n in range(6)
    ]
    (tmp_path / "hub" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    cases = await imported("vl-rewardbench", tmp_path / "hub", tmp_path / "out")
    by_id = {case.question_id: case for case in cases}
    assert {better(by_id[f"VLFeedback-{n}"]) for n in range(6)} == {
        f"{n} {'one' if n % 2 else 'two'}" for n in range(6)
    }
    assert {case.organ for case in cases} == {"rlaif_v"}
    assert {(*case.labels, case.evidence) for case in cases} == {("overall", None)}
    assert by_id["VLFeedback-3"].image == pictures.png(3)


async def test_multimodal_rewardbench(source: Path, tmp_path: Path) -> None:
    rows = [
        {
            "ID": n,
            "Text": "What is it?",
            "Image": "images/a.png",
            "Output1": f"{n} one",
            "Output2": f"{n} two",
            "Better": "Output2" if n % 2 else "Output1",
            "Category": "safety/bias",
        }
        for n in range(6)
    ]
    (source / "all_data.json").write_text(json.dumps(rows))
    cases = await imported("multimodal-rewardbench", source / "all_data.json", tmp_path / "out")
    assert {better(case) for case in cases} == {f"{n} {'two' if n % 2 else 'one'}" for n in range(6)}
    assert {case.organ for case in cases} == {"safety_bias"}


async def refused(source: Path, out: Path) -> Done:
    done = await medreward("bench", "import", source, out, "--layout", "questions")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    return done


async def test_what_is_not_laid_out_so_is_refused_in_one_line(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    row = {"id": "1", "image": "images/a.png", "question": "Normal?", "answer": "yes"}
    for rows, words in {
        "[1]": "questions",
        "{": "questions",
        json.dumps({key: value for key, value in row.items() if key != "image"}): "no 'image'",
        json.dumps(row | {"image": "../../etc/passwd"}): "leads out of",
        json.dumps(row | {"image": "images/none.png"}): "none.png",
    }.items():
        file = source / "qa.jsonl"
        file.write_text(rows)
        assert words in (await refused(file, out)).err
        assert not out.exists()
    assert "nowhere" in (await refused(tmp_path / "nowhere", out)).err
    out.mkdir()
    assert "exists" in (await refused(source, out)).err


def test_a_part_that_is_no_file_name_becomes_one(tmp_path: Path) -> None:
    pair = Pair("1", "../../Up Here", b"", "?", "a", "b", DIMENSIONS, {})
    assert pair.case(0).organ == "up_here"
