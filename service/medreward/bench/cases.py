"""What is measured on: cases with labels, and what is wrong with them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

Choice = Literal["A", "B", "tie"]
ANSWERS: Final = ("A", "B")
#: Labels made by rule, where a row says so; the official rows say nothing.
CONSTRUCTED: Final = "constructed"


@dataclass(frozen=True, slots=True)
class Case:
    """One question about one image, two answers, and which of them people (or a rule) prefer on each dimension.

    `image` is empty where a run shows no image.
    """

    question_id: str | int
    organ: str
    question: str
    answers: tuple[str, str]
    image: bytes
    labels: Mapping[str, str]
    department: str | None = None
    evidence: str | None = None
    question_type: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.organ, str(self.question_id)


@dataclass(frozen=True, slots=True)
class Finding:
    """Fatal: a figure taken on this set would be wrong."""

    where: str
    id: str | int | None
    what: str
    fatal: bool

    def __str__(self) -> str:
        return f"{self.where}{'' if self.id is None else f' {self.id}'}: {self.what}"


@dataclass(frozen=True)
class DataSet:
    """Cases in the order of their files and lines."""

    cases: Sequence[Case]
    findings: Sequence[Finding] = ()
    known_digest: str | None = None

    @property
    def fatal(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.fatal]

    @cached_property
    def digest(self) -> str:
        """Of what is asked and what is right; not of how the files are packed."""
        if self.known_digest:
            return self.known_digest
        whole = hashlib.sha256()
        for case in self.cases:
            image = hashlib.sha256(case.image).hexdigest()
            row = [case.question_id, case.organ, case.department, case.question, case.answers, image, {**case.labels}]
            whole.update(json.dumps(row, sort_keys=True).encode() + b"\n")
        return f"sha256:{whole.hexdigest()}"
