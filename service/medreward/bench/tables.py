"""summary.json: the official figures, the strict ones, and what a reader needs to judge them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from medreward.bench import official, votes
from medreward.bench.cases import ANSWERS, Case
from medreward.bench.figures import Figure, macro, micro, shortcut_accuracies
from medreward.bench.rundir import case_row
from medreward.bench.sheet import CaseRow, Column, PredictionRow, Sheet
from medreward.types import DIMENSIONS

Letters = Mapping[str, str]


def summarise(cases: Sequence[Case], predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what summary.json holds. It depends on the predictions alone: the same ones give the same bytes."""
    case_rows = [msgspec.convert(case_row(case), CaseRow) for case in cases]
    sheet = Sheet.of(case_rows, [msgspec.convert(prediction, PredictionRow) for prediction in predictions])
    # Labels are counted on a dimension that the model has not, too; there is no accuracy, for nothing was measured.
    labelled = replace(sheet, missing=frozenset())
    columns = {dimension: labelled.column(dimension) for dimension in DIMENSIONS}

    def table(columns: Mapping[str, Column], accuracy: Callable[[Column], Figure] = micro) -> dict[str, Any]:
        return {d: (Figure.of if d in sheet.missing else accuracy)(column).json() for d, column in columns.items()}

    parts: dict[str, dict[str, Any]] = {}
    for part, names in sheet.parts.items():
        parts[part] = {
            str(name): table({d: column.inside(column.parts[part] == name) for d, column in columns.items()})
            for name in np.unique(names)
            if name
        }
    summary: dict[str, Any] = {
        "cases": len(cases),
        "statuses": dict(sorted(Counter(prediction["status"] for prediction in predictions).items())),
        "official": official_figures(cases, predictions),
        "strict": {"micro": table(columns), "macro": table(columns, macro), **parts},
        "shortcuts": {dimension: shortcut_accuracies(column) for dimension, column in columns.items()},
    }
    is_judge = any("replies" in prediction for prediction in predictions)
    return summary | ({"judge": judge_figures(predictions)} if is_judge else {})


def official_figures(cases: Sequence[Case], predictions: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns the benchmark's own table.

    A judge counts by its first text on the order of the files, read as the benchmark's script reads it.
    """
    labels: dict[str, list[tuple[Any, Letters]]] = {}
    choices: dict[str, list[tuple[Any, Letters | None]]] = {}
    for case, prediction in zip(cases, predictions, strict=True):
        letters: Letters | None
        if "replies" in prediction:
            text = prediction["replies"][0]["text"]
            letters = None if text is None else official.read_letters(text)
        else:
            letters = {d: choice for d, choice in prediction["choices"].items() if choice in ANSWERS}
        labels.setdefault(case.organ, []).append((case.question_id, case.labels))
        choices.setdefault(case.organ, []).append((case.question_id, letters))
    return official.table(labels, choices)


def judge_figures(predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns whether the order of the answers decides, and how many texts were no votes."""
    replies = [prediction.get("replies", ()) for prediction in predictions]
    texts = [reply for case in replies for reply in case]
    return {
        "replies": len(texts),
        "unreadable": sum(reply["choices"] is None for reply in texts),
        "order": {dimension: _order_figures(replies, dimension) for dimension in DIMENSIONS},
    }


def _order_figures(replies: Sequence[Sequence[Mapping[str, Any]]], dimension: str) -> dict[str, Any]:
    """Returns how many cases have a vote in both orders, and in how many the orders agree.

    `first` is the share of votes for the answer that was shown first; without bias it is near a half.
    """
    pairs, count, first = [], 0, 0
    for case in replies:
        by_order = {
            order: [reply["choices"] for reply in case if reply["order"] == order and reply["choices"]]
            for order in ("AB", "BA")
        }
        if all(by_order.values()):
            pairs.append([votes.majority(choices, dimension) for choices in by_order.values()])
        count += sum(map(len, by_order.values()))
        first += sum(choices[dimension] == order[0] for order, listed in by_order.items() for choices in listed)
    consistent = sum(a == b for a, b in pairs)
    return {
        "n": len(pairs),
        "consistent": consistent,
        "consistency": round(consistent / len(pairs), 6) if pairs else None,
        "first": round(first / count, 6) if count else None,
    }
