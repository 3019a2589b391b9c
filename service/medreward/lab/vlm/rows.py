"""Rows of files as examples: our own format, those of TRL and ms-swift, and rows that a reader of benchmarks made.

What a row is, its columns say. A row that cannot be read stops the run with its file and number: nothing is left out
in silence.
"""

import hashlib
import json
import math
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from medreward.errors import ConfigurationError
from medreward.lab.training.served import Picture
from medreward.lab.vlm.examples import TIE, UNKNOWN, Example
from medreward.types import DIMENSIONS

Row = Mapping[str, Any]
LETTERS: Final = {"A": 1.0, "B": 0.0, "tie": TIE, None: math.nan}
IMAGE_TAG: Final = "<image>"
FORMATS: Final = (
    "answers and labels; response and grades; chosen and rejected (TRL); "
    "messages and rejected_response, rejected_messages or label (ms-swift)"
)


class BadRow(ValueError):
    """Says what is wrong with a row, without where it stands."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from, and what they mean where they do not say it."""

    name: str
    folder: Path  # that paths of images start from
    preference: Sequence[str]  # the dimensions of a preference that names none


def read_file(path: Path, preference: Sequence[str]) -> Iterator[Example]:
    """Yields the examples of a JSONL or Parquet file; fails with file and row for one that cannot be read."""
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {".jsonl": _jsonl, ".parquet": _parquet}
    reader = readers.get(path.suffix)
    if reader is None:
        raise ConfigurationError(f"{path} is neither a .jsonl nor a .parquet file, nor a benchmark's folder")
    try:
        yield from read_rows(reader(path), Source(path.name, path.parent, preference))
    except OSError as error:
        raise ConfigurationError(f"{error.filename or path} cannot be read ({error.strerror})") from error


def read_rows(rows: Iterator[Row], source: Source) -> Iterator[Example]:
    """Yields an example for each row; fails for the first that is none."""
    for number, row in enumerate(rows, 1):
        try:
            yield _example(row, source, f"{source.name} row {number}")
        except BadRow as error:
            raise ConfigurationError(f"{source.name}, row {number}: {error}") from None


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise ConfigurationError(f"{path.name}: line {number} is no JSON object")
            yield row


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise ConfigurationError("Parquet files need pyarrow: pip install 'medreward[parquet]'") from None
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(64):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise ConfigurationError(f"{path} is no Parquet file: {error}") from None


def _example(row: Row, source: Source, where: str) -> Example:
    told = _told(row, source)
    picture = _picture(_image_of(row), source.folder)
    margin = row.get("margin")
    if margin is not None and not (isinstance(margin, int | float) and math.isfinite(margin) and margin >= 0):
        raise BadRow("margin is no number from 0 up")
    question, answers, wins, grades = told
    if not question.strip():
        raise BadRow("the question is empty")
    organ, evidence = row.get("organ"), row.get("evidence")
    return Example(where, picture, question, answers, wins, grades, margin, str(organ or ""), evidence)


Told = tuple[str, tuple[str, ...], tuple[float, ...], tuple[float, ...]]


def _told(row: Row, source: Source) -> Told:
    """Returns question, answers, wins and grades, by whichever format the columns are."""
    has = {name for name, value in row.items() if value is not None}
    preferred = tuple(1.0 if name in source.preference else math.nan for name in DIMENSIONS)
    if {"question", "answers"} <= has:
        answers = row["answers"]
        if not isinstance(answers, list) or len(answers) != 2:
            raise BadRow("answers are not two texts")
        return _text(row, "question"), (_said(answers[0]), _said(answers[1])), _labels(row.get("labels")), UNKNOWN
    if {"question", "response"} <= has:
        return _text(row, "question"), (_text(row, "response"),), UNKNOWN, _grades(row.get("grades"))
    if {"chosen", "rejected"} <= has:
        (asked, good), (_, bad) = (_conversation(row, name) for name in ("chosen", "rejected"))
        return asked, (good, bad), _labels(row["labels"]) if "labels" in has else preferred, UNKNOWN
    if "messages" in has:
        if "label" in has:
            question, answer = _turns(row["messages"])
            return question, (answer,), UNKNOWN, _label(row["label"])
        question, good = _turns(row["messages"])
        if "rejected_response" in has:
            bad = _text(row, "rejected_response")
        elif "rejected_messages" in has:
            bad = _turns(row["rejected_messages"])[1]
        else:
            raise BadRow("messages have neither rejected_response, rejected_messages nor label beside them")
        return question, (good, bad), preferred, UNKNOWN
    raise BadRow(f"no format is known for its columns ({', '.join(sorted(map(str, has)))}); known are {FORMATS}")


def _labels(labels: Any) -> tuple[float, ...]:
    if not isinstance(labels, dict):
        raise BadRow("labels are no object of dimensions with A, B, tie or null")
    if strange := sorted(set(labels) - set(DIMENSIONS)):
        raise BadRow(f"labels name {strange[0]!r}, which is no dimension")
    for name, letter in labels.items():
        if not isinstance(letter, str | None) or letter not in LETTERS:
            raise BadRow(f"the label on {name} is {letter!r}, not A, B, tie or null")
    return tuple(LETTERS[labels.get(name)] for name in DIMENSIONS)


def _grades(grades: Any) -> tuple[float, ...]:
    if not isinstance(grades, dict):
        raise BadRow("grades are no object of dimensions with numbers from 0 to 1")
    if strange := sorted(set(grades) - set(DIMENSIONS)):
        raise BadRow(f"grades name {strange[0]!r}, which is no dimension")
    return tuple(_grade(name, grades.get(name)) for name in DIMENSIONS)


def _grade(name: str, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadRow(f"the grade on {name} is {value!r}, no number from 0 to 1")
    return float(value)


def _label(label: Any) -> tuple[float, ...]:
    """Returns the grades that a classifier's label is: six numbers, or one for overall."""
    values = label if isinstance(label, list) else [None] * (len(DIMENSIONS) - 1) + [label]
    if len(values) != len(DIMENSIONS):
        raise BadRow(f"label has {len(values)} numbers, and six or one are needed")
    return tuple(_grade(name, value) for name, value in zip(DIMENSIONS, values, strict=True))


def _conversation(row: Row, name: str) -> tuple[str, str]:
    """Returns question and answer of TRL's columns, with the prompt in one of its own or in front of the answer."""
    said, prompt = row[name], row.get("prompt")
    if prompt is None:
        if isinstance(said, str):
            raise BadRow(f"{name} is a text without a prompt, so that nobody knows where the answer starts")
        return _turns(said)
    answer = said if isinstance(said, str) else _content(said[-1] if isinstance(said, list) and said else None)
    if isinstance(prompt, str):
        return prompt.replace(IMAGE_TAG, "").strip(), answer
    return _turns([*prompt, {"role": "assistant", "content": answer}])


def _turns(messages: Any) -> tuple[str, str]:
    """Returns question and answer of a conversation of one turn each, whose place for the image is left out."""
    if not isinstance(messages, list) or [isinstance(m, dict) and m.get("role") for m in messages] != [
        "user",
        "assistant",
    ]:
        raise BadRow("a conversation must be one turn of the user and one of the assistant")
    return _content(messages[0]).replace(IMAGE_TAG, "").strip(), _content(messages[1])


def _content(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return "".join(_said(part["text"]) for part in content if isinstance(part, dict) and part.get("text"))
    return _said(content)


def _text(row: Row, name: str) -> str:
    if not isinstance(row[name], str):
        raise BadRow(f"{name} is no text")
    return str(row[name])


def _said(value: Any) -> str:
    if not isinstance(value, str):
        raise BadRow("an answer or a turn is no text")
    return value


def _image_of(row: Row) -> Any:
    images = row.get("images")
    if images is None:
        return row.get("image")
    if not isinstance(images, list) or len(images) > 1 or row.get("image"):
        raise BadRow("a row may have one image")
    return images[0] if images else None


def _picture(image: Any, folder: Path) -> Picture | None:
    """Returns the picture by the digest of its bytes. A text is a path from the file's folder, or a data URL."""
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if image is None or image == b"":
        return None
    if isinstance(image, bytes):
        return Picture(hashlib.sha256(image).hexdigest(), partial(bytes, image))
    if not isinstance(image, str):
        raise BadRow("image is neither a path, a data URL, bytes nor null")
    if image.startswith("data:"):
        try:
            return _picture(b64decode(image.partition(",")[2], validate=True), folder)
        except NotBase64:
            raise BadRow("image is a data URL that is no base64") from None
    path = folder / image
    if not path.is_file():
        raise BadRow(f"there is no image at {path}")
    with path.open("rb") as file:
        return Picture(hashlib.file_digest(file, "sha256").hexdigest(), path.read_bytes)
