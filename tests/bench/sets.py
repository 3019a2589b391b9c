"""Sets in the official layout, made for a test."""

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import pictures
from medreward.bench.cases import Case
from medreward.types import DIMENSIONS

ORGANS = ("brain", "lung", "upper_limb")


def some_cases(count: int, organs: Iterable[str] = ORGANS, seed: int = 0) -> list[Case]:
    """In the order of organs, as they are read; no two images or texts alike."""
    chance = random.Random(seed)
    names = sorted(organs)
    places = sorted(n % len(names) for n in range(count))
    return [
        Case(
            question_id=f"case-{n}",
            organ=names[place],
            question=f"What is seen in {n}?",
            answers=(f"first answer {n}", f"second answer {n}"),
            image=pictures.png(n, 12, 8),
            labels={dimension: chance.choice("AB") for dimension in DIMENSIONS},
        )
        for n, place in enumerate(places)
    ]


def row(case: Case) -> dict[str, Any]:
    return {
        "question_id": case.question_id,
        "image": {"bytes": case.image, "path": None},
        "question": case.question,
        "answer1_text": case.answers[0],
        "answer2_text": case.answers[1],
        "modality_type": case.organ,
    }


def label(case: Case) -> dict[str, Any]:
    return {"question_id": case.question_id, "human_answer": {**case.labels}}


def write_rows(folder: Path, organ: str, rows: list[dict[str, Any]]) -> None:
    file = folder / "pair_gt_all" / "parquet" / f"{organ}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


def write_labels(folder: Path, organ: str, labels: list[Mapping[str, Any]]) -> None:
    file = folder / "pair_gt_all" / f"{organ}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(one) + "\n" for one in labels))


def write_set(folder: Path, cases: Iterable[Case]) -> Path:
    listed = list(cases)
    for organ in dict.fromkeys(case.organ for case in listed):
        write_rows(folder, organ, [row(case) for case in listed if case.organ == organ])
        write_labels(folder, organ, [label(case) for case in listed if case.organ == organ])
    return folder
