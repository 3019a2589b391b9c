"""A judge's text, read strictly: a whole JSON object with six times A or B is a vote, everything else is none."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from medreward.bench.cases import ANSWERS, Choice
from medreward.encoding.thinking import KNOWN_TAGS
from medreward.types import DIMENSIONS

THOUGHTS: Final = re.compile("|".join(f"{re.escape(a)}.*?{re.escape(b)}" for a, b in KNOWN_TAGS), re.DOTALL)
FENCE: Final = "```"
#: For servers that can hold a model to a shape.
RESPONSE_FORMAT: Final = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {dimension: {"type": "string", "enum": [*ANSWERS]} for dimension in DIMENSIONS},
            "required": [*DIMENSIONS],
            "additionalProperties": False,
        },
    },
}


def read_verdict(text: str) -> dict[str, str] | None:
    """The six letters, or None. Thoughts before it and one code fence around it are allowed, and other keys in it."""
    text = text.strip()
    if thoughts := THOUGHTS.match(text):
        text = text[thoughts.end() :].strip()
    if text.startswith(FENCE) and text.endswith(FENCE):
        text = text.strip("`").removeprefix("json")
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or any(value.get(dimension) not in ANSWERS for dimension in DIMENSIONS):
        return None
    return {dimension: value[dimension] for dimension in DIMENSIONS}


def turned(verdict: Mapping[str, str]) -> dict[str, str]:
    """Of answers that were shown in the other order."""
    return {dimension: "B" if letter == "A" else "A" for dimension, letter in verdict.items()}


def majority(verdicts: Iterable[Mapping[str, str]], dimension: str) -> Choice | None:
    """Of the votes there are, all orders and samples alike; equal is a tie, none is no choice."""
    votes = [verdict[dimension] for verdict in verdicts]
    if not votes:
        return None
    lead = votes.count("A") - votes.count("B")
    return "A" if lead > 0 else "B" if lead < 0 else "tie"


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a repeated key")
    return dict(pairs)
