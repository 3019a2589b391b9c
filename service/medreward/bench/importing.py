"""Converts other data sets into the format, for tests of transfer.

Which answer is A is drawn by the row's id, never by rank.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medreward.bench.cases import CONSTRUCTED, Case
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

Row = Mapping[str, Any]
#: Where a set does not say which organ.
UNKNOWN: Final = "unknown"
YES_NO: Final = {"yes": "no", "no": "yes"}


@dataclass(frozen=True, slots=True)
class Pair:
    """A better and a worse answer, on some dimensions. `part` stands where the format has the organ."""

    id: str
    part: str
    image: bytes
    question: str
    better: str
    worse: str
    dimensions: tuple[str, ...]
    columns: Mapping[str, str]
    evidence: str | None = None

    def case(self, seed: int) -> Case:
        """Returns the pair as a case; the seed decides which answer is A."""
        is_a = hashlib.sha256(f"{seed} {self.id}".encode()).digest()[0] % 2 == 0
        answers = (self.better, self.worse) if is_a else (self.worse, self.better)
        labels = dict.fromkeys(self.dimensions, "A" if is_a else "B")
        organ = re.sub(r"[^a-z0-9]+", "_", self.part.lower()).strip("_") or UNKNOWN  # it names files
        return Case(self.id, organ, self.question, answers, self.image, labels, evidence=self.evidence)


def pairs(source: Path, seed: int) -> Iterator[Pair]:
    """Reads rows of set, image, question, good, bad, kind, dims; images beside the file."""
    for number, row in enumerate(_json_lines(source)):
        yield Pair(
            id=f"{source.stem}-{number}",
            part=row.get("region13") or UNKNOWN,
            image=_read_beside(source.parent, row["image"]),
            question=row["question"],
            better=row["good"],
            worse=row["bad"],
            dimensions=tuple(dimension for dimension in DIMENSIONS if dimension in row["dims"]),
            columns={"dataset": row["set"], "question_type": row["kind"]},
            evidence=CONSTRUCTED,
        )


def questions(source: Path, seed: int) -> Iterator[Pair]:
    """Reads rows of id, image, question, answer. The wrong answer is the right one of a row with the same question.

    Yes and no are each other's; rows whose question has no other answer in the file are left out.
    """
    rows = list(_json_lines(source))
    others: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        others[_plain(row["question"])].add(row["answer"])
    for row in rows:
        wrong = _wrong_answer(row, others[_plain(row["question"])], seed)
        if wrong is not None:
            yield Pair(
                id=str(row["id"]),
                part=row.get("region13") or UNKNOWN,
                image=_read_beside(source.parent, row["image"]),
                question=row["question"],
                better=row["answer"],
                worse=wrong,
                dimensions=("accuracy", "overall"),
                columns={
                    "dataset": row.get("source") or source.parent.name,
                    "question_type": row.get("answer_type") or "",
                },
                evidence=CONSTRUCTED,
            )


def vl_rewardbench(source: Path, seed: int) -> Iterator[Pair]:
    """Reads Parquet of id, query, response (two), image, human_ranking (0 is the better one's rank), query_source."""
    import pyarrow.parquet as pq

    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if not files:
        raise ConfigurationError(f"{source} has no Parquet file")
    for file in files:
        names = ["id", "query", "response", "image", "human_ranking", "query_source"]
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(64, columns=names):
                for row in batch.to_pylist():
                    better = row["human_ranking"].index(min(row["human_ranking"]))
                    yield _judged_pair(
                        row, "id", row["image"]["bytes"], row["query"], row["response"], better, "query_source"
                    )


def multimodal_rewardbench(source: Path, seed: int) -> Iterator[Pair]:
    """Reads `all_data.json`, a list of ID, Text, Image (a path beside it), Output1, Output2, Better, Category."""
    rows = json.loads(source.read_bytes())
    if not isinstance(rows, list):
        raise ConfigurationError(f"{source} must be a JSON list")
    for row in rows:
        outputs = row["Output1"], row["Output2"]
        better = ("Output1", "Output2").index(row["Better"])
        yield _judged_pair(
            row, "ID", _read_beside(source.parent, row["Image"]), row["Text"], outputs, better, "Category"
        )


Importer = Callable[[Path, int], Iterator[Pair]]
LAYOUTS: Final[Mapping[str, Importer]] = {
    "pairs": pairs,
    "questions": questions,
    "vl-rewardbench": vl_rewardbench,
    "multimodal-rewardbench": multimodal_rewardbench,
}


def import_pairs(layout: str, source: Path, seed: int) -> list[Pair]:
    """Returns the pairs of a file; raises ConfigurationError where it does not have the layout or cannot be read."""
    try:
        return list(LAYOUTS[layout](source, seed))
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # pyarrow's errors are kinds of these
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigurationError(f"{source} does not have the layout {layout}: {reason}") from None
    except OSError as error:
        raise ConfigurationError(f"{error.filename or source}: {error.strerror or error}") from None


def _judged_pair(
    row: Row, id_: str, image: bytes, question: str, answers: tuple[str, ...], better: int, part: str
) -> Pair:
    """Returns a pair that people judged. Their one verdict is one on the answer as a whole."""
    first, second = answers
    return Pair(
        id=str(row[id_]),
        part=row.get(part) or UNKNOWN,
        image=image,
        question=question,
        better=second if better else first,
        worse=first if better else second,
        dimensions=("overall",),
        columns={},
    )


def _wrong_answer(row: Row, answers: set[str], seed: int) -> str | None:
    """Returns a wrong answer out of those to the same question, drawn by the seed; None where there is none."""
    right = row["answer"]
    if opposite := YES_NO.get(_plain(right)):
        return opposite.capitalize() if right[:1].isupper() else opposite
    wrong = sorted(answer for answer in answers if _plain(answer) != _plain(right))
    return min(wrong, key=lambda answer: hashlib.sha256(f"{seed} {row['id']} {answer}".encode()).digest(), default=None)


def _plain(text: str) -> str:
    """Returns the text as it is compared: two answers that differ in case or a full stop are one."""
    return text.strip().rstrip(".?").lower()


def _read_beside(folder: Path, path: str) -> bytes:
    """Returns the file's bytes; raises ConfigurationError if the path leads out of the folder."""
    root = folder.resolve()
    file = (root / path).resolve()
    if not file.is_relative_to(root):
        raise ConfigurationError(f"{path[:80]} leads out of {folder}")
    return file.read_bytes()


def _json_lines(source: Path) -> Iterator[Row]:
    for line in source.read_bytes().splitlines():
        if line.strip():
            yield json.loads(line)
