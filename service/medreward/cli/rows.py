"""Rows of a JSONL or Parquet file, one at a time, each to the body of a request."""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from medreward.cli.extras import install
from medreward.errors import Code, ConfigurationError, ItemError, MedRewardError, RequestError

SUFFIXES: Final = (".jsonl", ".parquet")
ITEM: Final = ("image", "images", "question", "history", "response", "responses")
BASE64: Final = re.compile("[A-Za-z0-9+/]+={0,2}")
LONGEST_PATH: Final = 4096
PARQUET_ROWS: Final = 32  # at a time, for a row may hold an image; pyarrow itself holds a row group


@dataclass(frozen=True, slots=True)
class Row:
    number: int
    fields: Mapping[str, Any] | None  # None: the line is no JSON object


def is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def read_rows(path: Path, start: int = 0) -> Iterator[Row]:
    """From row `start` on; empty lines are no rows."""
    return _parquet_rows(path, start) if is_parquet(path) else _json_rows(path, start)


def count_rows(path: Path) -> int:
    if is_parquet(path):
        rows: int = open_parquet(path).metadata.num_rows
        return rows
    with path.open("rb") as file:
        return sum(not line.isspace() for line in file)


def request_body(row: Row, folder: Path, beside: Mapping[str, Any]) -> bytes:
    """The row as a grouped request of one item; `folder` is where its paths begin."""
    if row.fields is None:
        raise RequestError(Code.MALFORMED, "the line is not a JSON object")
    item = {key: row.fields[key] for key in ITEM if row.fields.get(key) is not None}
    if "image" in item:
        item["image"] = _image(item["image"], folder, "/items/0/image")
    if isinstance(item.get("images"), list):
        item["images"] = [_image(image, folder, f"/items/0/images/{i}") for i, image in enumerate(item["images"])]
    try:
        return json.dumps({"items": [item], **beside}).encode()
    except (TypeError, ValueError):
        raise RequestError(Code.INVALID_FIELD, "the row holds values that are not JSON") from None


def import_pyarrow() -> ModuleType:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigurationError(
            f"Parquet files need pyarrow, which is not installed; run {install('parquet')}"
        ) from None
    arrow: ModuleType = pyarrow
    return arrow


def open_parquet(path: Path) -> Any:
    pyarrow = import_pyarrow()
    try:
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False)
    except pyarrow.ArrowInvalid:
        raise ConfigurationError(f"{path} is not a Parquet file") from None


def _json_rows(path: Path, start: int) -> Iterator[Row]:
    with path.open("rb") as file:
        lines = (line for line in file if not line.isspace())
        yield from (Row(number, _object(line)) for number, line in enumerate(lines) if number >= start)


def _object(line: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _parquet_rows(path: Path, start: int) -> Iterator[Row]:
    file = open_parquet(path)
    columns = [name for name in file.schema_arrow.names if name in (*ITEM, "id")]
    number = 0
    for batch in _batches(file, columns, path):
        if number + batch.num_rows > start:
            yield from (Row(n, fields) for n, fields in enumerate(batch.to_pylist(), number) if n >= start)
        number += batch.num_rows


def _batches(file: Any, columns: Sequence[str], path: Path) -> Iterator[Any]:
    try:
        yield from file.iter_batches(PARQUET_ROWS, columns=columns)
    except (OSError, ValueError):  # pyarrow's errors are kinds of these
        raise ConfigurationError(f"{path} is damaged") from None


def _image(value: Any, folder: Path, field: str) -> Any:
    """A path, base64, bytes, an object of the contract, or the struct that data sets of the hub have, for a request."""
    if isinstance(value, Mapping) and not {"bytes", "path"}.isdisjoint(value):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if not isinstance(value, str) or not value:
        return value
    try:
        if len(value) < LONGEST_PATH and (folder / value).is_file():
            return base64.b64encode((folder / value).read_bytes()).decode()
    except (OSError, ValueError):
        raise _unreadable(field) from None
    if not BASE64.fullmatch(value):
        raise _unreadable(field)
    return value


def _unreadable(field: str) -> MedRewardError:
    return ItemError(Code.IMAGE_FETCH_FAILED, "the image is neither a file that can be read nor base64", field)
