"""The output of score-file, so that a run that was killed can go on: lines in the input's order, and a record beside.

JSONL grows in place. Parquet cannot: its rows are kept as lines in a journal and become the file in one last step.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

from medreward.cli.rows import import_pyarrow, is_parquet, open_parquet
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Steps, Thinking

CHUNK_ROWS: Final = 1024
POLICY_FIELDS: Final = ("name", "version", "digest")
MODEL_FIELDS: Final = ("name", "version", "fingerprint", "runtime", "evidence")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What decides the output: another of these is another run."""

    input: str
    fingerprint: str
    dtype: str  # numbers of one are not those of another
    weights: dict[str, float] | None
    too_long: str
    thinking: str
    steps: str = Steps.NONE
    policy: str | None = None  # digest; None: nothing is decided
    viewpoint: str | None = None


class Output:
    """Opens a new file, or one where a run of the same input, model and options stopped."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        self._path = path
        self._journal = path.with_name(f"{path.name}.part.jsonl") if is_parquet(path) else path
        claim(path, record)
        self._record = record
        self.done = is_parquet(path) and path.exists() and not self._journal.exists()
        self._file: BinaryIO | None = None
        if self.done:
            batches = open_parquet(path).iter_batches(CHUNK_ROWS, columns=["results"])
            self.rows, self.failed = _count(row for batch in batches for row in batch.to_pylist())
            return
        self._file = self._journal.open("ab", buffering=0)
        _drop_torn_line(self._journal)
        self.rows, self.failed = _count(_lines(self._journal))

    def append(self, row: dict[str, Any]) -> None:
        assert self._file
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        while line:  # a raw file may take less than all of it
            line = line[self._file.write(line) :]
        self.rows += 1
        self.failed += has_failed(row)

    def finish(self, id_type: Any) -> None:
        """Closes the output, for the input has no more rows. `id_type` is that of a Parquet input's ids."""
        self.close()
        if is_parquet(self._path) and not self.done:
            draft = self._path.with_name(f"{self._path.name}.tmp")
            write_parquet(_lines(self._journal), draft, id_type, self._record)
            draft.replace(self._path)
            self._journal.unlink()

    def close(self) -> None:
        if self._file:
            self._file.close()


def claim(path: Path, record: RunRecord) -> None:
    """Writes the record beside a new output.

    Raises ConfigurationError where an output is there that another run began, or that is not of score-file.
    """
    file = path.with_name(f"{path.name}.run.json")
    if not file.exists():
        if path.exists():
            raise ConfigurationError(
                f"{path} already exists and was not begun by score-file; move it away or name another file"
            )
        draft = file.with_name(f"{file.name}.tmp")
        draft.write_text(json.dumps(asdict(record), indent=2) + "\n", "utf-8")
        draft.replace(file)
        return
    try:
        begun = json.loads(file.read_bytes())
    except ValueError:
        begun = None
    if not isinstance(begun, dict):
        raise ConfigurationError(f"{file} is damaged; move it and {path} away to begin anew")
    # One that an older version began has no word of what that version could not do.
    begun = {field.name: field.default for field in fields(record)} | begun
    others = [name for name, value in asdict(record).items() if begun[name] != value]
    if others:
        raise ConfigurationError(
            f"{path} was begun with another {' and another '.join(others)}; move it and {file.name} away to begin anew"
        )


def count_verdicts(path: Path) -> Counter[str]:
    """Returns how many rows of a finished output of `screen run` have which verdict."""
    if not is_parquet(path):
        return Counter(row["verdict"] for row in _lines(path))
    batches = open_parquet(path).iter_batches(CHUNK_ROWS, columns=["verdict"])
    return Counter(row["verdict"] for batch in batches for row in batch.to_pylist())


def input_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def has_failed(row: dict[str, Any]) -> bool:
    """Returns whether the row, or one of its responses, has no score."""
    return row["results"] is None or any(result["status"] != "ok" for result in row["results"])


def _drop_torn_line(path: Path) -> None:
    """Cuts off what stands behind the last line break."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65_536)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        file.truncate(end)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict) or row.get("row") != number or "results" not in row:
                raise ConfigurationError(f"line {number + 1} of {path} is not what score-file writes; move it away")
            yield row


def _count(rows: Iterator[dict[str, Any]]) -> tuple[int, int]:
    total = failed = 0
    for row in rows:
        total += 1
        failed += has_failed(row)
    return total, failed


def write_parquet(rows: Iterator[dict[str, Any]], to: Any, id_type: Any, record: RunRecord) -> None:
    """Writes rows as a Parquet file: to a path, or into an open file. The record says which columns there are."""
    pyarrow = import_pyarrow()
    schema = _parquet_schema(pyarrow, id_type, record)
    with pyarrow.parquet.ParquetWriter(to, schema) as writer:
        while chunk := list(islice(rows, CHUNK_ROWS)):
            if id_type == pyarrow.string():
                chunk = [row if row.get("id") is None else {**row, "id": str(row["id"])} for row in chunk]
            writer.write_batch(pyarrow.RecordBatch.from_pylist(chunk, schema=schema))


def _parquet_schema(pyarrow: Any, id_type: Any, record: RunRecord) -> Any:
    text, number, place = pyarrow.string(), pyarrow.float64(), pyarrow.int32()
    six = pyarrow.struct([(dimension, number) for dimension in DIMENSIONS])
    error = pyarrow.struct([("code", text), ("message", text), ("field", text)])
    reason = pyarrow.struct([("rule", text), ("dimension", text), ("value", number), ("threshold", number)])
    decides = record.policy is not None
    verdict = [("verdict", text), ("reasons", pyarrow.list_(reason)), ("margin", number)] if decides else []
    policy = pyarrow.struct([(name, text) for name in POLICY_FIELDS])
    decided = [("verdict", text), ("policy", policy)] if decides else []
    numbers = [("scores", six), ("logits", six), ("uncertainty", six), ("reward", number)]
    step = pyarrow.struct([("end", pyarrow.int64()), ("logits", six), ("reward", number), ("error", error)])
    steps = [("steps", pyarrow.list_(step))] if record.steps != Steps.NONE else []
    flags = ("flags", pyarrow.list_(text))
    aside = [("without_thinking", pyarrow.struct([*numbers, flags, ("error", error)]))]
    result = pyarrow.struct(
        [
            ("item", place),
            ("response", place),
            ("status", text),
            ("error", error),
            *numbers,
            flags,
            *steps,
            *(aside if record.thinking == Thinking.BOTH else []),
            *verdict,
        ]
    )
    model = pyarrow.struct([(name, text) for name in MODEL_FIELDS])
    columns = [("row", pyarrow.int64()), ("id", id_type)] if id_type is not None else [("row", pyarrow.int64())]
    return pyarrow.schema([*columns, ("results", pyarrow.list_(result)), ("error", error), *decided, ("model", model)])
