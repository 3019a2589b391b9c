"""The benchmark's own figures: how its script reads a judge's text, and how it counts. Quirks included, on purpose.

Never used for a strict figure: a refusal with one stray "a" in it is a vote for A here.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from medreward.types import DIMENSIONS

Verdict: TypeAlias = Mapping[str, str]


def read_verdict(text: str) -> dict[str, str] | None:
    """The first of four readings that gives something, or None."""
    text = text.strip().strip('"')
    return _as_json(text) or _as_lines(text) or _as_one_letter(text)


def table(
    labels: Mapping[str, Iterable[tuple[Any, Verdict]]], verdicts: Mapping[str, Iterable[tuple[Any, Verdict | None]]]
) -> dict[str, dict[str, float]]:
    """By organ and dimension, from (question_id, …) rows: a repeated id overwrites, what is not there is wrong."""
    return {organ: _accuracies(dict(rows), dict(verdicts.get(organ, ()))) for organ, rows in labels.items()}


def _accuracies(labels: Mapping[Any, Verdict], verdicts: Mapping[Any, Verdict | None]) -> dict[str, float]:
    def correct(dimension: str) -> int:
        given = ((label.get(dimension), verdicts.get(id_)) for id_, label in labels.items())
        return sum(bool(label and verdict and verdict.get(dimension) == label) for label, verdict in given)

    return {dimension: round(correct(dimension) / len(labels), 4) if labels else 0.0 for dimension in DIMENSIONS}


def _as_json(text: str) -> dict[str, str] | None:
    """From the first brace to the last, other keys or not; lower case will do."""
    if "{" in text and "}" in text:
        text = text[text.find("{") : text.rfind("}") + 1]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    letters = {dimension: str(value.get(dimension, "")).strip().upper() for dimension in DIMENSIONS}
    return letters if {*letters.values()} <= {"A", "B"} else None


def _as_lines(text: str) -> dict[str, str] | None:
    """`name: A` for all six, anywhere; nothing has to end behind the letter, so "accuracy: both" is a B."""
    found = {d: re.search(rf'{d}"?\s*:\s*"?([AB])', text, re.IGNORECASE) for d in DIMENSIONS}
    letters = {dimension: match[1].upper() for dimension, match in found.items() if match}
    return letters if len(letters) == len(DIMENSIONS) else None


def _as_one_letter(text: str) -> dict[str, str] | None:
    """The first [[A]] or [[B]], else the only a or b that stands alone in the whole text."""
    bracketed = re.search(r"\[\[([AB])\]\]", text, re.IGNORECASE)
    alone = re.findall(r"\b([AB])\b", text, re.IGNORECASE)
    if bracketed:
        return dict.fromkeys(DIMENSIONS, bracketed[1].upper())
    return dict.fromkeys(DIMENSIONS, alone[0].upper()) if len(alone) == 1 else None
