"""The benchmark's own figures: how its script reads a judge's text, and how it counts. Quirks included, on purpose.

Never used for a strict figure: a refusal with one stray "a" in it is a vote for A here.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from medreward.types import DIMENSIONS

Letters: TypeAlias = Mapping[str, str]


def read_letters(text: str) -> dict[str, str] | None:
    """Returns the letters by the first reading of three that gives something, or None."""
    text = text.strip().strip('"')
    return _from_json(text) or _from_lines(text) or _from_one_letter(text)


def _from_json(text: str) -> dict[str, str] | None:
    """Reads from the first brace to the last, other keys or not; lower case will do."""
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


def _from_lines(text: str) -> dict[str, str] | None:
    """Reads `name: A` for all six, anywhere. Nothing has to end behind the letter, so "accuracy: both" is a B."""
    matches = {d: re.search(rf'{d}"?\s*:\s*"?([AB])', text, re.IGNORECASE) for d in DIMENSIONS}
    letters = {dimension: match[1].upper() for dimension, match in matches.items() if match}
    return letters if len(letters) == len(DIMENSIONS) else None


def _from_one_letter(text: str) -> dict[str, str] | None:
    """Reads the first [[A]] or [[B]], else the only a or b that stands alone in the whole text."""
    bracketed = re.search(r"\[\[([AB])\]\]", text, re.IGNORECASE)
    alone = re.findall(r"\b([AB])\b", text, re.IGNORECASE)
    if bracketed:
        return dict.fromkeys(DIMENSIONS, bracketed[1].upper())
    return dict.fromkeys(DIMENSIONS, alone[0].upper()) if len(alone) == 1 else None


def table(
    labels: Mapping[str, Iterable[tuple[Any, Letters]]], choices: Mapping[str, Iterable[tuple[Any, Letters | None]]]
) -> dict[str, dict[str, float]]:
    """Returns accuracies by organ and dimension, from rows of a question_id and letters.

    A repeated id overwrites, and what is not there is wrong.
    """
    accuracies: dict[str, dict[str, float]] = {}
    for organ, rows in labels.items():
        wanted, chosen = dict(rows), dict(choices.get(organ, ()))
        accuracies[organ] = dict.fromkeys(DIMENSIONS, 0.0)
        for dimension in DIMENSIONS if wanted else ():
            right = 0
            for id_, letters in wanted.items():
                label, choice = letters.get(dimension), chosen.get(id_)
                right += bool(label and choice and choice.get(dimension) == label)
            accuracies[organ][dimension] = round(right / len(wanted), 4)
    return accuracies
