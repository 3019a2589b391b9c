"""What several people chose on the same cases, read from a file."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from medreward.bench.sheet import SIDES
from medreward.bench.statistics import Floats
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

Row = tuple[str, Mapping[str, Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Rating:
    """What one annotator chose on one case; a dimension that is not there was not rated."""

    where: str
    question_id: str
    organ: str | None
    annotator: str
    sides: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Annotations:
    """`sides` are cases x annotators for each dimension, NaN where somebody did not rate."""

    annotators: Sequence[str]
    cases: Sequence[tuple[str | None, str]]
    sides: Mapping[str, Floats]


def read(file: Path) -> Annotations:
    """Reads JSON lines of question_id, annotator and human_answer, or CSV with a column for each dimension.

    Raises ConfigurationError, with the line, where the file is anything else or has one annotator alone.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {file}: {error}") from None
    rows = _csv_rows(file.name, text) if file.suffix.lower() == ".csv" else _json_rows(file.name, text)
    return _table(file, [_read_rating(where, row, answers) for where, row, answers in rows])


def _json_rows(name: str, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("human_answer"), dict):
            raise ConfigurationError(f"{where} must be a JSON object with an object human_answer")
        yield where, row, row["human_answer"]


def _csv_rows(name: str, text: str) -> Iterator[Row]:
    rows = csv.DictReader(StringIO(text, newline=""))
    for row in rows:
        answers = {dimension: row[dimension] for dimension in DIMENSIONS if (row.get(dimension) or "").strip()}
        yield f"{name} line {rows.line_num}", row, answers


def _read_rating(where: str, row: Mapping[str, Any], answers: Mapping[str, Any]) -> Rating:
    for name in ("question_id", "annotator"):
        if not isinstance(row.get(name), str | int) or row[name] == "":
            raise ConfigurationError(f"{where} has no {name}")
    sides = {}
    for dimension, answer in answers.items():
        if dimension not in DIMENSIONS:
            raise ConfigurationError(f"{where}: {dimension!r} is not one of the six dimensions")
        if answer is not None and str(answer).strip() not in SIDES:
            raise ConfigurationError(f"{where}: {dimension} is {answer!r}; it must be A, B or tie")
        if answer is not None:
            sides[dimension] = str(answer).strip()
    organ = row.get("organ")
    return Rating(where, str(row["question_id"]), str(organ) if organ else None, str(row["annotator"]), sides)


def _table(file: Path, ratings: Sequence[Rating]) -> Annotations:
    annotators = sorted({rating.annotator for rating in ratings})
    cases = list(dict.fromkeys((rating.organ, rating.question_id) for rating in ratings))
    places = {case: number for number, case in enumerate(cases)}
    sides = {dimension: np.full((len(cases), len(annotators)), np.nan) for dimension in DIMENSIONS}
    seen = set()
    for rating in ratings:
        place = places[rating.organ, rating.question_id], annotators.index(rating.annotator)
        if place in seen:
            raise ConfigurationError(f"{rating.where}: {rating.annotator} has already rated {rating.question_id}")
        seen.add(place)
        for dimension, side in rating.sides.items():
            sides[dimension][place] = SIDES[side]
    if len(annotators) < 2:
        raise ConfigurationError(f"{file} has choices of one annotator; agreement needs two or more")
    return Annotations(annotators, cases, sides)
