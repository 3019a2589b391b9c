"""What is learnt from: a question, its image, one answer with grades or two with preferences, by dimension."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from medreward.errors import ConfigurationError
from medreward.lab.training.served import Picture
from medreward.lab.vlm.recipe import Data
from medreward.types import DIMENSIONS

UNKNOWN: Final = (math.nan,) * len(DIMENSIONS)
TIE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Example:
    """Pairs have two answers and `wins`, graded answers one and `grades`; NaN where nothing is told."""

    where: str  # file and row, for errors
    picture: Picture | None
    question: str
    answers: tuple[str, ...]
    wins: tuple[float, ...] = UNKNOWN  # how often the first of two answers should win, on each dimension
    grades: tuple[float, ...] = UNKNOWN  # of the only answer, on each dimension, 0 to 1
    margin: float | None = None
    organ: str = ""
    evidence: str | None = None

    @property
    def subject(self) -> str:
        """What keeps examples in one part: the image, or, without one, the question."""
        return self.picture.name if self.picture else f"text {hashlib.sha256(self.question.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Parts:
    """Examples by what they are for; no image is in two of them."""

    train: list[Example]
    dev: list[Example]
    held: list[Example]


def split(examples: Sequence[Example], shares: Data, seed: int) -> Parts:
    """Returns the parts; fails where one of them that should hold something holds nothing."""
    subjects = sorted({example.subject for example in examples})
    order = [subjects[place] for place in np.random.default_rng(seed).permutation(len(subjects))]
    dev, held = (math.ceil(share * len(order)) for share in (shares.dev_share, shares.held_share))
    part = dict.fromkeys(order[:dev], 1) | dict.fromkeys(order[dev : dev + held], 2)
    parts: tuple[list[Example], ...] = ([], [], [])
    for example in examples:
        parts[part.get(example.subject, 0)].append(example)
    if not parts[0]:
        raise ConfigurationError(
            f"{len(order)} images are too few for a part to learn from, one to stop by and one to measure on"
        )
    return Parts(*parts)


def with_ties(examples: Iterable[Example], ties: str) -> list[Example]:
    """Returns the examples, with ties as half a win or as not told; without those that then tell nothing."""
    kept = []
    for example in examples:
        if ties == "masked":
            wins = tuple(math.nan if win == TIE else win for win in example.wins)
            example = replace(example, wins=wins)
        if not all(map(math.isnan, (*example.wins, *example.grades))):
            kept.append(example)
    return kept


def held_pairs(held: Sequence[Example], most: int) -> list[Example]:
    """Returns the pairs to measure on, with those that graded answers to one question about one image make.

    Fails where none has an image: then nothing would tell what the image brings.
    """
    pairs = [example for example in held if len(example.answers) == 2]
    graded: defaultdict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in held:
        if len(example.answers) == 1:
            graded[example.subject, example.question].append(example)
    for answers in graded.values():
        pairs += [_paired(one, other) for one, other in pairwise(answers)]
    if not any(pair.picture for pair in pairs):
        raise ConfigurationError(
            "the held part has no two answers to one question about one image, so that nothing tells what the image "
            "brings: give pairs, or more than one graded answer to a question"
        )
    return pairs[:most]


def _paired(one: Example, other: Example) -> Example:
    apart = np.sign(np.subtract(one.grades, other.grades))  # NaN where either is not graded
    return replace(one, answers=(*one.answers, *other.answers), wins=tuple((apart / 2 + 0.5).tolist()), grades=UNKNOWN)


def data_digest(examples: Iterable[Example]) -> str:
    """Returns a sha256 over what is asked and what is told, in whatever order the rows stand."""
    rows = sorted(
        repr((example.subject, example.question, example.answers, example.wins, example.grades, example.margin))
        for example in examples
    )
    return f"sha256:{hashlib.sha256(chr(10).join(rows).encode()).hexdigest()}"
