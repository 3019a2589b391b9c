"""Rows of every format become the same examples, and a bad row stops the run with its file and number."""

import base64
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medreward.errors import ConfigurationError
from medreward.lab.vlm.examples import Example, with_ties
from medreward.lab.vlm.rows import read_file
from medreward.types import DIMENSIONS

Row = Mapping[str, Any]
ASKED = "Is there a fracture?"
TURN = {"role": "user", "content": f"<image>{ASKED}"}
PARTS = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ASKED}]}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(folder: Path, *rows: Row) -> list[Example]:
    (folder / "x.png").write_bytes(b"a picture")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [*read_file(file, ("overall",))]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"prompt": ASKED, "chosen": "No.", "rejected": "Yes."}, id="trl, texts"),
        pytest.param({"prompt": [PARTS], "chosen": [said("No.")], "rejected": [said("Yes.")]}, id="trl, messages"),
        pytest.param({"chosen": [TURN, said("No.")], "rejected": [TURN, said("Yes.")]}, id="trl, no prompt"),
        pytest.param({"messages": [TURN, said("No.")], "rejected_response": "Yes."}, id="ms-swift"),
        pytest.param(
            {"messages": [TURN, said("No.")], "rejected_messages": [TURN, said("Yes.")]}, id="ms-swift, messages"
        ),
    ],
)
@pytest.mark.parametrize("images", [{"images": ["x.png"]}, {"image": "x.png"}])
def test_a_preference_without_dimensions_is_one_for_overall(row: Row, images: Row, tmp_path: Path) -> None:
    (example,) = read(tmp_path, {**row, **images})
    assert (example.question, example.answers) == (ASKED, ("No.", "Yes."))
    assert example.picture
    assert example.picture.read() == b"a picture"
    assert example.wins[-1] == 1.0
    assert all(map(math.isnan, example.wins[:-1]))


def test_labels_name_what_wins_on_each_dimension_and_what_is_not_told(tmp_path: Path) -> None:
    labels = {"accuracy": "A", "relevance": "B", "creativity": "tie", "overall": None}
    row = {"image": None, "question": ASKED, "answers": ["No.", "Yes."], "labels": labels, "margin": 0.5}
    (example,) = read(tmp_path, row)
    assert example.picture is None
    assert example.margin == 0.5
    told = dict(zip(DIMENSIONS, example.wins, strict=True))
    assert (told["accuracy"], told["relevance"], told["creativity"]) == (1.0, 0.0, 0.5)
    assert all(math.isnan(told[name]) for name in ("comprehensiveness", "responsiveness", "overall"))
    (masked,) = with_ties([example], "masked")
    assert math.isnan(masked.wins[DIMENSIONS.index("creativity")])
    assert with_ties(read(tmp_path, {**row, "labels": {"creativity": "tie"}}), "masked") == []


def test_grades_and_labels_of_a_classifier_are_pointwise(tmp_path: Path) -> None:
    ours = {"question": ASKED, "response": "No.", "grades": {"accuracy": 0.25}}
    six = {"messages": [TURN, said("No.")], "label": [0, 0.2, 0.4, 0.6, 0.8, 1]}
    one = {"messages": [TURN, said("No.")], "label": 0.5}
    first, second, third = read(tmp_path, ours, six, one)
    assert {example.answers for example in (first, second, third)} == {("No.",)}
    assert first.grades[0] == 0.25
    assert [*second.grades] == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert third.grades[-1] == 0.5
    assert all(map(math.isnan, (*first.grades[1:], *third.grades[:-1])))


def test_parquet_holds_images_as_bytes_and_a_data_url_is_the_same_image(tmp_path: Path) -> None:
    row = {"question": ASKED, "answers": ["No.", "Yes."], "labels": {"overall": "A"}}
    pq.write_table(
        pa.Table.from_pylist([{**row, "image": {"bytes": b"a picture", "path": None}}]), tmp_path / "r.parquet"
    )
    (of_parquet,) = read_file(tmp_path / "r.parquet", ("overall",))
    url = f"data:image/png;base64,{base64.b64encode(b'a picture').decode()}"
    (of_url,) = read(tmp_path, {**row, "image": url})
    assert of_parquet.picture == of_url.picture
    assert of_parquet.wins[-1] == 1.0


@pytest.mark.parametrize(
    ("row", "said_of_it"),
    [
        ({"question": ASKED}, "no format is known"),
        ({"question": ASKED, "answers": ["No."], "labels": {}}, "answers are not two texts"),
        ({"question": ASKED, "answers": ["a", "b"], "labels": {"accuracy": "C"}}, "'C', not A, B, tie or null"),
        ({"question": ASKED, "answers": ["a", "b"], "labels": {"acuracy": "A"}}, "no dimension"),
        ({"question": ASKED, "response": "a", "grades": {"accuracy": 7}}, "no number from 0 to 1"),
        ({"question": ASKED, "answers": ["a", "b"], "labels": {"overall": "A"}, "margin": -1}, "margin"),
        ({"messages": [TURN, said("a"), TURN, said("b")], "rejected_response": "c"}, "one turn of the user"),
        ({"chosen": "a", "rejected": "b"}, "without a prompt"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "the question is empty"),
        ({"prompt": ASKED, "chosen": "a", "rejected": "b", "image": "gone.png"}, "no image at"),
        ({"prompt": ASKED, "chosen": "a", "rejected": "b", "images": ["x.png", "x.png"]}, "one image"),
    ],
)
def test_a_bad_row_is_named(row: Row, said_of_it: str, tmp_path: Path) -> None:
    good = {"prompt": ASKED, "chosen": "a", "rejected": "b"}
    with pytest.raises(ConfigurationError, match=r"rows\.jsonl, row 2") as refused:
        read(tmp_path, good, row)
    assert said_of_it in str(refused.value)
