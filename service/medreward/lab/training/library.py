"""What the cases know together: other right answers to the same question, to the same kind, about the same image."""

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from medreward.lab.training.cases import Case, plain

T = TypeVar("T")
#: Words, places and kinds of question that a mirrored picture would make wrong.
SIDED: Final = re.compile(
    r"\b(left|right|side[ds]?|(uni|ipsi|contra)lateral|laterali\w*|[rl]t|[rl][uml]l|situs|dextro\w*|levo\w*"
    r"|where|locat\w*|position\w*)\b",
    re.IGNORECASE,
)
SIDED_KINDS: Final = ("pos", "position")
SHARES: Final = {"pretrain": 0.35, "phantom": 0.25}  # against sets of questions about real images


class Library:
    def __init__(self, cases: Sequence[Case], diseases: dict[str, dict[str, str]]) -> None:
        self.cases = list(cases)
        self.by_image = _grouped(cases, lambda case: case.image)
        self.by_meaning = _grouped(cases, lambda case: case.meaning)
        self.by_kind = _grouped(cases, lambda case: case.kind)
        self.by_subject = _grouped(cases, lambda case: f"{case.kind}/{case.subject}")
        self.diseases = diseases
        self.sideless = {image for image, about in self.by_image.items() if not any(map(_names_a_side, about))}
        self._at = _grouped(list(diseases), lambda name: diseases[name].get("location", ""))
        self._chances = _chances(self.cases)

    def any_case(self, dice: Generator) -> Case:
        """Draws a case; sets count by the root of their size, so that a large one does not drown a small one."""
        return self.cases[int(np.searchsorted(self._chances, dice.random()))]

    def twin(self, case: Case, dice: Generator) -> Case | None:
        """Draws the same question with another answer, about an image of another group; None if none is found."""
        others = self.by_meaning[case.meaning]
        for _ in range(12):
            other = others[dice.integers(len(others))]
            if other.group != case.group and not overlap(other.answer, case.answer):
                return other
        return None

    def wrong(self, case: Case, dice: Generator) -> str | None:
        """Draws a plausible wrong answer: mostly another image's right answer to the same question."""
        if case.yes_or_no:
            return {"yes": "No", "no": "Yes"}[case.answer.lower()]
        right = [other.answer for other in self.by_image[case.image] if other.meaning == case.meaning]
        pools = (self.by_meaning[case.meaning], self.by_subject[f"{case.kind}/{case.subject}"], self.by_kind[case.kind])
        if (neighbours := self._neighbours(case.answer)) and dice.random() < 0.4:
            return neighbours[dice.integers(len(neighbours))]
        for _ in range(12):
            pool = pools[dice.choice(3, p=(0.45, 0.25, 0.3))]
            answer = pool[dice.integers(len(pool))].answer
            if not any(overlap(answer, known) for known in right):
                return answer
        return None

    def beside(self, case: Case, count: int, dice: Generator) -> list[Case]:
        """Draws other questions about the same image."""
        others = [other for other in self.by_image[case.image] if other.meaning != case.meaning]
        return [others[place] for place in dice.permutation(len(others))[:count]]

    def insight(self, answer: str, dice: Generator) -> str | None:
        """Draws what the knowledge graph says about a disease that the answer names; None if it says nothing."""
        facts = self.diseases.get(plain(answer))
        if not facts:
            return None
        named = [name for name in ("cause", "symptom", "treatment", "prevention") if name in facts]
        told = [f"{name.capitalize()} of {answer.lower()}: {facts[name]}." for name in named]
        if "description" in facts:
            told.append(f"{answer} is {facts['description'].rstrip('.')}.")
        return told[dice.integers(len(told))] if told else None

    def _neighbours(self, answer: str) -> list[str]:
        facts = self.diseases.get(plain(answer))
        if not facts:
            return []
        near = self._at[facts.get("location", "")]
        return [self.diseases[name]["name"] for name in near if name != plain(answer)]


def _names_a_side(case: Case) -> bool:
    """Tells whether a side is named; a phantom's graded answers may name one whatever is asked."""
    source, *_, kind, _ = case.kind.split("/")
    said = SIDED.search(f"{case.question} {case.answer}")
    return source == "phantom" or kind.lower() in SIDED_KINDS or said is not None


def overlap(one: str, other: str) -> bool:
    """Tells whether one answer holds the other, and may so be right where it is."""
    a, b = set(plain(one).split()), set(plain(other).split())
    return a <= b or b <= a


def read_diseases(folder: Path) -> dict[str, dict[str, str]]:
    """Returns SLAKE's knowledge graph of diseases; it is empty where the data folder has none."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    path = folder / "slake" / "kg" / "en_disease.csv"
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="#"):
                if row["disease"] and row["attribute"] and row["value"]:
                    found[plain(row["disease"])] |= {"name": row["disease"], row["attribute"]: row["value"]}
    return dict(found)


def _grouped(items: Sequence[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return found


def _chances(cases: Sequence[Case]) -> NDArray[np.float64]:
    source = [case.kind.split("/")[0] for case in cases]
    count = {name: source.count(name) for name in set(source)}
    chance = np.array([count[name] ** -0.5 * SHARES.get(name, 1.0) for name in source])
    return np.cumsum(chance / chance.sum())
