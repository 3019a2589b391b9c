"""The official layout on disk: labels in jsonl, questions and images in parquet, one file of each for an organ."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from medreward.bench.cases import ANSWERS, Case, DataSet, Finding
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

LABELS: Final = "pair_gt_all"
QUESTIONS: Final = "pair_gt_all/parquet"
NEEDED: Final = ("question_id", "image", "question", "answer1_text", "answer2_text")
READ: Final = (*NEEDED, "modality_type", "department", "question_type")
ROWS: Final = 64  # at a time, for a row holds an image


def read(folder: Path, departments: Mapping[str, str] | None = None) -> DataSet:
    """Returns what is there, and what is wrong with it; raises ConfigurationError where there is no such layout.

    `departments` is by question_id or by organ, the first counts more.
    """
    if not (folder / LABELS).is_dir():
        raise ConfigurationError(f"{folder} does not have the layout of Med-RewardBench: it has no folder {LABELS}")
    files = [*(folder / LABELS).glob("*.jsonl"), *(folder / QUESTIONS).glob("*.parquet")]
    organs = sorted({file.stem for file in files})
    if not organs:
        raise ConfigurationError(f"{folder / LABELS} has no .jsonl file")
    readers = [OrganReader(folder, organ, departments or {}) for organ in organs]
    cases = [case for reader in readers for case in reader.cases()]
    findings = [finding for reader in readers for finding in reader.findings]
    return DataSet(cases, [*findings, *_repeats_across_organs(cases)])


def undecodable(cases: Iterable[Case]) -> Iterator[Finding]:
    """Gives a finding for each image that cannot be decoded. It decodes every one, which takes its time."""
    from PIL import Image

    for case in cases:
        try:
            Image.open(BytesIO(case.image)).load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # the third from broken PNG files
            yield Finding(f"{QUESTIONS}/{case.organ}.parquet", case.question_id, "the image cannot be decoded", True)


def write(folder: Path, cases: Iterable[Case], columns: Mapping[tuple[str, str], Mapping[str, str]]) -> None:
    """Writes the same layout; `columns` are a case's further columns, by its key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / QUESTIONS).mkdir(parents=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for organ, group in groupby(sorted(cases, key=lambda case: case.organ), lambda case: case.organ):
        rows, lines = [], []
        for case in group:
            row: dict[str, Any] = {
                "question_id": str(case.question_id),
                "image": {"bytes": case.image, "path": None},
                "question": case.question,
                "answer1_text": case.answers[0],
                "answer2_text": case.answers[1],
                "modality_type": case.organ,
            }
            rows.append(row | {**columns.get(case.key, {})})
            label = {"question_id": str(case.question_id), "human_answer": {**case.labels}}
            lines.append(json.dumps(label | ({"evidence": case.evidence} if case.evidence else {})) + "\n")
        names = dict.fromkeys(name for row in rows for name in row)
        schema = pa.schema([(name, image if name == "image" else pa.string()) for name in names])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / QUESTIONS / f"{organ}.parquet")
        (folder / LABELS / f"{organ}.jsonl").write_text("".join(lines), "utf-8")


def _repeats_across_organs(cases: Iterable[Case]) -> Iterator[Finding]:
    """Gives a finding for each id and each image that is in an earlier organ too."""
    first_id: dict[str, Case] = {}
    first_image: dict[str, Case] = {}
    for case in cases:
        where = f"{LABELS}/{case.organ}.jsonl"
        other = first_id.setdefault(str(case.question_id), case)
        if other.organ != case.organ:
            yield Finding(where, case.question_id, f"the id is in {other.organ} too", False)
        twin = first_image.setdefault(hashlib.sha256(case.image).hexdigest(), case)
        if twin.organ != case.organ and case.image:
            what = f"the image is that of {twin.question_id} in {twin.organ}"
            yield Finding(f"{QUESTIONS}/{case.organ}.parquet", case.question_id, what, False)


@dataclass
class OrganReader:
    """Reads one organ's two files; what is wrong with them is in `findings`."""

    folder: Path
    organ: str
    departments: Mapping[str, str]
    findings: list[Finding] = field(default_factory=list)

    @property
    def labels_file(self) -> str:
        return f"{LABELS}/{self.organ}.jsonl"

    @property
    def questions_file(self) -> str:
        return f"{QUESTIONS}/{self.organ}.parquet"

    def cases(self) -> list[Case]:
        """Returns the labelled rows, in the order of the labels."""
        labels = self.labels()
        rows = self.rows()
        if labels is None or rows is None:
            return []
        self.compare_ids([label["question_id"] for label in labels], [row["question_id"] for row in rows])
        by_id = {str(row["question_id"]): row for row in rows}
        seen: set[str] = set()
        cases = []
        for label in labels:
            id_ = str(label["question_id"])
            if id_ in by_id and id_ not in seen:
                cases.append(self.case(label, by_id[id_]))
            seen.add(id_)
        for dimension in DIMENSIONS:
            if missing := sum(dimension not in case.labels for case in cases):
                self.report(self.labels_file, None, f"{missing} of {len(cases)} cases have no {dimension} label", False)
        return cases

    def case(self, label: Mapping[str, Any], row: Mapping[str, Any]) -> Case:
        id_ = label["question_id"]
        labels = self.human_answer(label)
        if row.get("modality_type", self.organ) != self.organ:
            self.report(self.questions_file, id_, f"modality_type is {row['modality_type']!r}", True)
        texts = [row[name] for name in ("question", "answer1_text", "answer2_text")]
        if not all(isinstance(text, str) for text in texts):
            self.report(self.questions_file, id_, "a question or an answer is no text", True)
        question, first, second = (str(text) for text in texts)
        of_file = self.departments.get(str(id_)) or self.departments.get(self.organ)
        department = of_file or row.get("department") or label.get("department")
        evidence, kind = label.get("evidence"), row.get("question_type")
        return Case(
            question_id=id_,
            organ=self.organ,
            question=question,
            answers=(first, second),
            image=self.image(row),
            labels=labels,
            department=str(department) if department else None,
            evidence=None if evidence is None else str(evidence),
            question_type=str(kind) if kind else None,
        )

    def human_answer(self, label: Mapping[str, Any]) -> dict[str, str]:
        """Returns the letters that a label has on the six dimensions."""
        id_, letters = label["question_id"], label.get("human_answer")
        if not isinstance(letters, dict):
            self.report(self.labels_file, id_, "human_answer is no object", True)
            return {}
        for name, letter in letters.items():
            if name not in DIMENSIONS:
                self.report(self.labels_file, id_, f"a label on {name!r}, which is no dimension", False)
            elif letter not in ANSWERS:
                self.report(self.labels_file, id_, f"the label on {name} is {letter!r}, not A or B", True)
        return {dimension: letters[dimension] for dimension in DIMENSIONS if letters.get(dimension) in ANSWERS}

    def image(self, row: Mapping[str, Any]) -> bytes:
        """Returns the image's bytes, from the row or from the file that it names; none where there is no such file.

        A path is one inside the folder: a data set must not send other files of this machine to a server.
        """
        image = row["image"]
        data, path = (image.get("bytes"), image.get("path")) if isinstance(image, Mapping) else (None, None)
        if isinstance(data, bytes):
            return data
        root = self.folder.resolve()
        for base in (root, root / QUESTIONS) if path else ():
            file = (base / str(path)).resolve()
            if file.is_relative_to(root) and file.is_file():
                return file.read_bytes()
        self.report(self.questions_file, row["question_id"], "no image", True)
        return b""

    def compare_ids(self, labelled: list[str | int], asked: list[Any]) -> None:
        for file, ids in (self.labels_file, labelled), (self.questions_file, asked):
            for id_, times in Counter(map(str, ids)).items():
                if times > 1:
                    self.report(file, id_, f"the id is there {times} times", True)
        known, wanted = {*map(str, labelled)}, {*map(str, asked)}
        for id_ in sorted(wanted - known):
            self.report(self.questions_file, id_, f"no label in {self.labels_file}; it is not asked", False)
        for id_ in sorted(known - wanted):
            self.report(self.labels_file, id_, f"a label without a row in {self.questions_file}", True)

    def labels(self) -> list[dict[str, Any]] | None:
        """Returns the rows of the jsonl file, None where it is missing."""
        file = self.folder / self.labels_file
        if not file.is_file():
            self.report(self.labels_file, None, "the file is missing; its rows are not asked", False)
            return None
        labels = []
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            if not line.strip():
                continue
            try:
                label = json.loads(line)
            except (ValueError, RecursionError):
                label = None
            if isinstance(label, dict) and isinstance(label.get("question_id"), str | int):
                labels.append(label)
            else:
                self.report(self.labels_file, None, f"line {number} is no object with a question_id", True)
        return labels

    def rows(self) -> list[dict[str, Any]] | None:
        """Returns the rows of the Parquet file, None where it is missing or cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self.folder / self.questions_file
        if not file.is_file():
            self.report(self.questions_file, None, "the file is missing", True)
            return None
        try:
            with pq.ParquetFile(file) as parquet:
                names = parquet.schema_arrow.names
                if missing := [name for name in NEEDED if name not in names]:
                    self.report(self.questions_file, None, f"no column {', '.join(missing)}", True)
                    return None
                batches = parquet.iter_batches(ROWS, columns=[name for name in READ if name in names])
                return [row for batch in batches for row in batch.to_pylist()]
        except (pa.ArrowException, OSError) as error:
            self.report(self.questions_file, None, f"cannot be read: {error}", True)
            return None

    def report(self, where: str, id_: str | int | None, what: str, fatal: bool) -> None:
        self.findings.append(Finding(where, id_, what, fatal))
