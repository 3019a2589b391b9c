"""What an actor of `score-file --ray` does, without Ray around it: pieces in, parts out, and the output they make."""

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from medreward.cli.in_process import EngineTransport
from medreward.cli.output import RunRecord
from medreward.cli.pieces import Input, Piece
from medreward.cli.score_ray import Asked, Parts, Scorer, check_record, write_output
from medreward.errors import ConfigurationError
from pictures import png

QUESTION = "Is there a fracture?"


def rows_of(folder: Path, number: int = 20) -> list[dict[str, Any] | str]:
    """Rows of groups of four, by path, as base64 and without an image, and among them some that are bad."""
    (folder / "images").mkdir(exist_ok=True)
    for n in range(3):
        (folder / "images" / f"{n}.png").write_bytes(png(n))
    inline = b64encode(png(7)).decode()
    images = ["images/0.png", f"file://{folder}/images/1.png", inline, None, "images/2.png"]
    rows: list[dict[str, Any] | str] = [
        {"id": f"id {n}", "image": images[n // 4 % 5], "question": QUESTION, "response": f"Reading {n}."}
        for n in range(number)
    ]
    rows[5:5] = ["this is no JSON", {"id": "no image", "image": "gone.png", "question": QUESTION, "response": "r"}]
    return [*rows, {"id": "no answer", "question": QUESTION}]


def written(path: Path, rows: list[dict[str, Any] | str]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def written_as(suffix: str, folder: Path, rows: list[dict[str, Any] | str]) -> Path:
    """Parquet has no lines that are no rows."""
    if suffix == ".jsonl":
        return written(folder / "in.jsonl", rows)
    table = pyarrow.Table.from_pylist([row for row in rows if isinstance(row, dict)])
    pyarrow.parquet.write_table(table, folder / "in.parquet", row_group_size=9)
    return folder / "in.parquet"


def path_of(row: dict[str, Any] | str, prefix: str) -> dict[str, Any] | str:
    if isinstance(row, str) or not row.get("image"):
        return row
    return {**row, "image": row["image"].removeprefix(prefix)}


def asked(source: Path, target: Path) -> Asked:
    local = {"model": "fake", "decoders": 1, "drift": "off"}
    options = {"weights": None, "too_long": "error", "thinking": "keep"}
    return Asked(str(source), str(target), local, options, concurrency=4, retry_seconds=0, batch_rows=6)


def columns(pieces: list[Any]) -> dict[str, Any]:
    """The pieces as Ray Data hands them to an actor."""
    return {name: np.array([asdict(piece)[name] for piece in pieces]) for name in asdict(pieces[0])}


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Callable[[Asked], Scorer]:
    """Actors whose model and decoders are in this process, which starts quicker."""
    start = EngineTransport.start
    monkeypatch.setattr(EngineTransport, "start", lambda settings, _="inline": start(settings, "inline"))
    return Scorer


def finish(about: Asked, scorer: Scorer) -> tuple[RunRecord, dict[str, Any]]:
    """Scores all pieces and makes the output of them, as the command does."""
    pieces = [*Input(about.source).pieces(about.batch_rows)]
    records = {record for piece in reversed(pieces) for record in scorer(columns([piece]))["record"]}
    (record,) = (RunRecord(**json.loads(check_record(about.target, "", record))) for record in records)
    summary = write_output(about, record, Parts(about, record).lines(range(len(pieces)))).as_json()
    return record, summary


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_output_is_that_of_score_file(
    actor: Callable[[Asked], Scorer], run_here: Any, tmp_path: Path, suffix: str
) -> None:
    rows = rows_of(tmp_path)
    source = written_as(suffix, tmp_path, rows)
    about = asked(source, tmp_path / f"ray{suffix}")
    _, summary = finish(about, actor(about))
    # score-file by itself knows paths on this machine's disk, and no URIs
    written_as(suffix, tmp_path, [path_of(row, f"file://{tmp_path}/") for row in rows])
    done = run_here("score-file", f"in{suffix}", f"here{suffix}", "--model", "fake")
    assert done.returncode == 1, done
    if suffix == ".parquet":
        assert pyarrow.parquet.read_table(about.target).equals(pyarrow.parquet.read_table(tmp_path / "here.parquet"))
    else:
        assert Path(about.target).read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    assert summary["failed"] == (2 if suffix == ".parquet" else 3)
    assert summary["rows"] == len(rows) - (suffix == ".parquet")
    assert summary["errors"]["image_fetch_failed"] == 1
    assert sum(summary["scores"]["overall"]["counts"]) == summary["reward"]["count"] == 20


def test_an_actor_that_was_killed_loses_no_piece_that_it_wrote(
    actor: Callable[[Asked], Scorer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = asked(written(tmp_path / "in.jsonl", rows_of(tmp_path)), tmp_path / "out.jsonl")
    pieces = [*Input(about.source).pieces(about.batch_rows)]
    actor(about)(columns(pieces[:2]))
    (tmp_path / "out.jsonl.parts" / "torn.tmp").write_text("{")  # of the piece that it was at
    again: list[int] = []
    score = Scorer._score

    async def noted(self: Scorer, piece: Piece) -> bytes:
        again.append(piece.number)
        return await score(self, piece)

    monkeypatch.setattr(Scorer, "_score", noted)
    finish(about, actor(about))
    assert sorted(again) == [piece.number for piece in pieces[2:]]
    assert [json.loads(line)["row"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [*range(23)]


def test_a_finished_output_is_not_scored_again_and_one_of_another_run_not_mixed(
    actor: Callable[[Asked], Scorer], tmp_path: Path
) -> None:
    about = asked(written(tmp_path / "in.jsonl", rows_of(tmp_path)), tmp_path / "out.jsonl")
    record, summary = finish(about, actor(about))
    parts = Parts(about, record)
    parts.finish({"run": parts.run, **summary})
    assert not (tmp_path / "out.jsonl.parts").exists()
    actor(about)(columns([*Input(about.source).pieces(about.batch_rows)]))
    assert not (tmp_path / "out.jsonl.parts").exists()
    others = json.dumps(asdict(replace(record, fingerprint="sha256:another")))
    with pytest.raises(ConfigurationError, match="begun with another fingerprint"):
        check_record(about.target, "", others)
    with pytest.raises(ConfigurationError, match="two actors have different models"):
        check_record(about.target, json.dumps(asdict(record)), others)


def test_a_part_that_another_nodes_disk_has_is_missed_with_a_word(tmp_path: Path) -> None:
    about = asked(written(tmp_path / "in.jsonl", rows_of(tmp_path)), tmp_path / "out.jsonl")
    parts = Parts(about, RunRecord("sha256:in", "sha256:model", "fp32", None, "error", "keep"))
    with pytest.raises(ConfigurationError, match="on a disk that all nodes of the Ray cluster share"):
        list(parts.lines(range(1)))


def test_a_folder_of_files_is_one_input(tmp_path: Path) -> None:
    rows = [{"question": QUESTION, "response": f"{n}"} for n in range(5)]
    folder = tmp_path / "rows"
    folder.mkdir()
    written(folder / "b.jsonl", [*rows[2:]])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:2]), folder / "a.parquet")
    (folder / "notes.txt").write_text("none of it")
    source = Input(str(folder))
    read = [row for piece in source.pieces(2) for row in source.read(piece)]
    assert [row.number for row in read] == [*range(5)]
    assert [row.fields["response"] for row in read if row.fields] == ["0", "1", "2", "3", "4"]


def test_without_ray_the_command_says_how_to_install_it(run_here: Any, tmp_path: Path) -> None:
    written(tmp_path / "in.jsonl", rows_of(tmp_path))
    done = run_here("score-file", "in.jsonl", "out.jsonl", "--model", "fake", "--ray", "auto")
    assert done.returncode == 2
    assert "Ray, which is not installed" in done.stderr
    done = run_here("score-file", "in.jsonl", "out.jsonl", "--url", "http://127.0.0.1:1", "--ray", "auto")
    assert done.returncode == 2
    assert "--ray and --url exclude each other" in done.stderr
