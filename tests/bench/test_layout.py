"""The official layout: what is read, from where, and what is found to be wrong with it."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pictures
from bench.here import Done, medreward, medreward_apart
from bench.hub import COMMIT, REPO, hub_of
from bench.sets import label, row, some_cases, write_labels, write_rows, write_set
from medreward.bench.layout import read, undecodable
from medreward.bench.sources import open_set
from medreward.errors import ConfigurationError

pytestmark = pytest.mark.slow


async def check(data: str | Path, *flags: str, **variables: str) -> Done:
    return await medreward("bench", "check", data, *flags, **variables)


def test_cases_come_back_as_they_were_written_in_the_order_of_organs_and_labels(tmp_path: Path) -> None:
    cases = some_cases(9)
    found = read(write_set(tmp_path, cases))
    assert (found.cases, found.findings) == (cases, [])


def test_the_digest_is_of_the_content_and_not_of_the_files(tmp_path: Path) -> None:
    cases = some_cases(4, ["lung"])
    digest = read(write_set(tmp_path / "a", cases)).digest
    folder = write_set(tmp_path / "b", cases)
    file = folder / "pair_gt_all" / "parquet" / "lung.parquet"
    extra = {"dataset": "x", "image_id": "1"}
    table = pa.Table.from_pylist([row(case) | extra for case in reversed(cases)])
    pq.write_table(table, file, compression="zstd", row_group_size=1)
    assert read(folder).digest == digest
    changes = {"question": "?", "answers": ("a", "b"), "image": pictures.png(99), "labels": {"overall": "A"}}
    for name, value in changes.items():
        other: Any = {name: value}
        assert read(write_set(tmp_path / name, [replace(cases[0], **other), *cases[1:]])).digest != digest


def test_an_image_may_be_a_path_inside_the_set_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(pictures.png())
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(pictures.png(1))
    cases = some_cases(3, ["lung"])
    paths = ["images/a.png", "../secret.png", str(tmp_path / "secret.png")]
    rows = [row(case) | {"image": {"bytes": None, "path": path}} for case, path in zip(cases, paths, strict=True)]
    write_rows(folder, "lung", rows)
    write_labels(folder, "lung", list(map(label, cases)))
    found = read(folder)
    assert [case.image for case in found.cases] == [pictures.png(1), b"", b""]
    assert [(finding.id, finding.what, finding.fatal) for finding in found.findings] == [
        ("case-1", "no image", True),
        ("case-2", "no image", True),
    ]


def test_departments_are_read_where_they_are_and_a_file_of_the_users_counts_more(tmp_path: Path) -> None:
    cases = some_cases(6)  # two of each organ
    folder = write_set(tmp_path / "set", cases)
    brain = [row(case) | {"department": "neurology"} for case in cases[:2]]
    write_rows(folder, "brain", brain)
    assert [case.department for case in read(folder).cases] == ["neurology"] * 2 + [None] * 4
    for name, text in {
        "d.json": json.dumps({"case-0": "surgery", "lung": "pneumology"}),
        "d.csv": "case-0,surgery\nlung,pneumology\n",
    }.items():
        (tmp_path / name).write_text(text)
        departments = [case.department for case in open_set(str(folder), tmp_path / name).cases]
        assert departments == ["surgery", "neurology", "pneumology", "pneumology", None, None]


@pytest.mark.parametrize("text", ["[1]", "a,b,c\n", "{"])
def test_a_file_of_departments_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / ("d.csv" if "a," in text else "d.json")
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="neither a JSON object nor CSV"):
        open_set(str(write_set(tmp_path / "set", some_cases(1))), file)


def spoil_labels(change: Callable[[list[dict[str, object]]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        labels: list[dict[str, object]] = [label(case) for case in some_cases(6) if case.organ == "lung"]
        change(labels)
        write_labels(folder, "lung", list(labels))

    return spoil


def spoil_rows(change: Callable[[list[dict[str, object]]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        rows: list[dict[str, object]] = [row(case) for case in some_cases(6) if case.organ == "lung"]
        change(rows)
        write_rows(folder, "lung", rows)

    return spoil


def delete(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "pair_gt_all" / name).unlink()


def add_line(file: Path, line: str) -> None:
    file.write_text(f"{file.read_text()}{line}\n")


LUNG_LABELS, LUNG_ROWS = "pair_gt_all/lung.jsonl", "pair_gt_all/parquet/lung.parquet"


@pytest.mark.parametrize(
    ("spoil", "where", "id_", "what", "fatal"),
    [
        (delete("parquet/lung.parquet"), LUNG_ROWS, None, "the file is missing", True),
        (delete("lung.jsonl"), LUNG_LABELS, None, "the file is missing", False),
        (spoil_rows(lambda rows: [r.pop("answer2_text") for r in rows]), LUNG_ROWS, None, "answer2_text", True),
        (spoil_rows(lambda rows: rows.append(rows[0])), LUNG_ROWS, "case-2", "2 times", True),
        (spoil_labels(lambda labels: labels.append(labels[0])), LUNG_LABELS, "case-2", "2 times", True),
        (spoil_labels(lambda labels: labels.pop()), LUNG_ROWS, "case-3", "no label", False),
        (spoil_rows(lambda rows: rows.pop()), LUNG_LABELS, "case-3", "a label without a row", True),
        (
            spoil_labels(lambda labels: labels[0].update(human_answer={"overall": "C"})),
            LUNG_LABELS,
            "case-2",
            "the label on overall is 'C', not A or B",
            True,
        ),
        (spoil_labels(lambda labels: labels[0].update(human_answer=None)), LUNG_LABELS, "case-2", "no object", True),
        (
            spoil_labels(lambda labels: [one.update(human_answer={"overall": "A"}) for one in labels]),
            LUNG_LABELS,
            None,
            "2 of 2 cases have no creativity label",
            False,
        ),
        (
            spoil_rows(lambda rows: rows[0].update(image={"bytes": pictures.png()[:60], "path": None})),
            LUNG_ROWS,
            "case-2",
            "cannot be decoded",
            True,
        ),
        (
            spoil_rows(lambda rows: rows[0].update(image={"bytes": pictures.png(0, 12, 8), "path": None})),
            LUNG_ROWS,
            "case-2",
            "the image is that of case-0 in brain",
            False,
        ),
        (spoil_rows(lambda rows: rows[0].update(modality_type="eye")), LUNG_ROWS, "case-2", "'eye'", True),
        (lambda folder: (folder / LUNG_ROWS).write_bytes(b"PAR1"), LUNG_ROWS, None, "cannot be read", True),
        (lambda folder: add_line(folder / LUNG_LABELS, "[]"), LUNG_LABELS, None, "line 3", True),
    ],
)
def test_what_is_wrong_is_found_and_fatal_where_a_figure_would_be_wrong(
    tmp_path: Path, spoil: Callable[[Path], None], where: str, id_: str | None, what: str, fatal: bool
) -> None:
    folder = write_set(tmp_path / "set", some_cases(6))
    spoil(folder)
    found = read(folder)
    findings = [*found.findings, *undecodable(found.cases)]
    ours = [finding for finding in findings if (finding.where, finding.id) == (where, id_)]
    assert [what in finding.what for finding in ours].count(True) == 1, findings
    assert any(finding.fatal for finding in findings) == fatal


async def test_a_fatal_finding_is_the_end_of_check(tmp_path: Path) -> None:
    cases = some_cases(6)
    broken = replace(cases[5], image=pictures.png()[:60])
    done = await check(write_set(tmp_path, [*cases[:5], broken]), "--json")
    assert done.code == 2
    assert json.loads(done.out)["findings"] == [
        {
            "where": "pair_gt_all/parquet/upper_limb.parquet",
            "id": "case-5",
            "what": "the image cannot be decoded",
            "fatal": True,
        }
    ]


async def test_a_good_set_has_no_findings_and_the_same_id_in_two_organs_is_only_one(tmp_path: Path) -> None:
    cases = some_cases(6)
    good = await check(write_set(tmp_path / "good", cases))
    assert (good.code, good.out) == (0, "6 cases, 0 findings, 0 of them fatal\n")
    twin = replace(cases[5], question_id=cases[0].question_id)
    done = await check(write_set(tmp_path / "twins", [*cases[:5], twin]))
    assert done.code == 0
    assert "the id is in brain too" in done.out


@pytest.mark.parametrize("data", ["nowhere", "org/name", "."])
async def test_what_is_no_set_is_refused_in_one_line(tmp_path: Path, data: str) -> None:
    done = await check(tmp_path if data == "." else data)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


async def test_a_set_comes_from_the_hub_at_a_revision_and_is_kept(tmp_path: Path) -> None:
    cases = some_cases(6)
    folder = write_set(tmp_path / "set", cases)
    (folder / "huge.bin").write_bytes(b"not asked for")
    digest = read(folder).digest
    check = partial(medreward_apart, "bench", "check")  # huggingface_hub reads its settings when it is imported
    home = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with hub_of(folder) as hub:
        done = await check(f"{REPO}@v1.0", "--json", HF_ENDPOINT=hub.url, **home)
        assert done.code == 0, (done, hub.paths)
        assert json.loads(done.out)["digest"] == digest
        assert not any("huge" in path for path in hub.paths)
        missing = await check(f"{REPO}@v2", HF_ENDPOINT=hub.url, **home)
        assert (missing.code, missing.err.count("\n")) == (2, 1), missing
        gone = hub.url
    kept = await check(f"{REPO}@{COMMIT}", "--json", HF_ENDPOINT=gone, **home)
    assert (kept.code, json.loads(kept.out)["digest"]) == (0, digest)
    never = await check(f"{REPO}@v2", HF_ENDPOINT=gone, **home)
    assert (never.code, never.err.count("\n")) == (2, 1), never
