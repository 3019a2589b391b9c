"""The sets on disk as cases: one question about one image, and its right answer. Only the training split is read."""

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: Questions of VQA-Med that mean the same in many words; its other kinds are told apart by their words.
ONE_MEANING: Final = ("plane", "organ", "abnormality")
LABEL_QUESTIONS: Final = {
    "modality": ("What imaging modality was used?", "How was this image taken?", "What kind of scan is this?"),
    "region13": ("Which part of the body is shown?", "What region of the body was imaged?"),
    "finding": ("What does this image show?", "What is the main finding?", "What disease is present in this image?"),
}


@dataclass(frozen=True, slots=True)
class Case:
    image: str  # path below the data folder
    question: str
    answer: str
    kind: str  # answers to one kind of question can stand for each other
    meaning: str  # questions that ask the same
    group: str
    subject: str  # what is pictured, roughly: organ and modality

    @property
    def yes_or_no(self) -> bool:
        return self.answer.lower() in ("yes", "no")


def plain(text: str) -> str:
    """Returns the text as it is compared: lower case, words only."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def read_cases(folder: Path) -> list[Case]:
    """Returns every question of the training split below a data folder."""
    held_out = {str(row["group"]) for path in question_files(folder) for row in read_lines(path) if is_dev(row)}
    cases = [
        case
        for path in question_files(folder)
        for row in read_lines(path)
        if not is_dev(row)
        for case in [_question(path.parent.name, row)]
        if case.group not in held_out
    ]
    for path in sorted((folder / "pretrain").glob("*/labels.jsonl")):
        rows = [row for row in read_lines(path) if not is_dev(row)]
        findings = sorted({row["finding"] for row in rows if row.get("finding")})
        for row in rows:
            cases += _labels(path.parent.name, row)
            if row.get("finding") and len(findings) > 1:
                cases += _findings(path.parent.name, row, findings)
    return cases


def question_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/qa.jsonl"))


def asked_about(row: dict[str, Any]) -> str:
    """Returns the kind of question, as its set names it."""
    named = row.get("content_type") or row.get("question_type") or row.get("category") or "any"
    return str(named).split(",")[0].strip()


def is_dev(row: dict[str, Any]) -> bool:
    return bool(row["split"] != "train")


def _question(source: str, row: dict[str, Any]) -> Case:
    answer = " ".join(str(row["answer"]).split()).rstrip(".")
    words = plain(row["question"])
    kind = asked_about(row)
    closed = answer.lower() in ("yes", "no")
    meaning = words
    if kind in ONE_MEANING and not closed:
        meaning = kind
    return Case(
        image=f"{source}/{row['image']}",
        question=row["question"].strip(),
        answer=answer,
        kind=f"{source}/{kind}/{'closed' if closed else 'open'}",
        meaning=f"{source}/{meaning}/{'closed' if closed else 'open'}",
        group=str(row["group"]),
        subject=f"{row.get('organ')}/{row.get('modality')}",
    )


def _labels(source: str, row: dict[str, Any]) -> Iterator[Case]:
    """Findings are told apart within their source only; modality and region across all of them."""
    for name, questions in LABEL_QUESTIONS.items():
        if not row.get(name):
            continue
        question = questions[hash_of(row["image"], name) % len(questions)]
        yield _label(source, row, question, row[name], name)


def _label(source: str, row: dict[str, Any], question: str, answer: str, name: str) -> Case:
    scope = f"pretrain/{source}" if name in ("finding", "seen") else "pretrain"
    closed = "closed" if name == "seen" else "open"
    return Case(
        image=f"pretrain/{source}/{row['image']}",
        question=question,
        answer=answer,
        kind=f"{scope}/{name}/{closed}",
        meaning=f"{scope}/{plain(question) if name == 'seen' else name}/{closed}",
        group=str(row["group"]),
        subject=f"{row['region13']}/{row['modality']}",
    )


def _findings(source: str, row: dict[str, Any], among: Sequence[str]) -> Iterator[Case]:
    """Gives a yes and a no of what an image shows: its own finding, and another of the same source."""
    choice = hash_of(row["image"], "other")
    others = [name for name in among if name != row["finding"]]
    for name, answer in ((row["finding"], "Yes"), (others[choice % len(others)], "No")):
        yield _label(
            source, row, f"Is there {name}?" if choice % 2 else f"Does this image show {name}?", answer, "seen"
        )


def hash_of(*words: str) -> int:
    """Returns a number that is the same in every run, unlike that of `hash`."""
    return zlib.crc32("/".join(words).encode())
