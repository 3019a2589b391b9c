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


def read_vote(text: str) -> dict[str, str] | None:
    """Returns the six letters, or None where the text is no vote.

    Thoughts before the object, one code fence around it and other keys in it are allowed.
    """
    text = text.strip()
    if thoughts := THOUGHTS.match(text):
        text = text[thoughts.end() :].strip()
    if text.startswith(FENCE) and text.endswith(FENCE):
        text = text.strip("`").removeprefix("json")
    try:
        value = json.loads(text, object_pairs_hook=_refuse_repeats)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or any(value.get(dimension) not in ANSWERS for dimension in DIMENSIONS):
        return None
    return {dimension: value[dimension] for dimension in DIMENSIONS}


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the object; raises ValueError if it has a key twice, for then nobody knows which one is meant."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a repeated key")
    return dict(pairs)


def turned(vote: Mapping[str, str]) -> dict[str, str]:
    """Returns the vote on answers that were shown in the other order."""
    return {dimension: "B" if letter == "A" else "A" for dimension, letter in vote.items()}


def majority(votes: Iterable[Mapping[str, str]], dimension: str) -> Choice | None:
    """Returns the majority of the votes there are, all orders and samples alike; equal is a tie, none is no choice."""
    letters = [vote[dimension] for vote in votes]
    if not letters:
        return None
    lead = letters.count("A") - letters.count("B")
    return "A" if lead > 0 else "B" if lead < 0 else "tie"
