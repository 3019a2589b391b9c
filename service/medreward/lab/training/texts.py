"""Groups without an image: long answers, physicians' statements, real right and wrong model answers."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy.random import Generator

from medreward.lab.training.cases import read_lines
from medreward.lab.training.grades import (
    EVADED,
    GENERIC,
    NOTHING,
    REFUSED,
    RIGHT,
    UNRELATED,
    WRONG,
    Answer,
    Group,
    changed,
)
from medreward.lab.training.wording import BOILERPLATE, EMPTY_TALK, EVASIONS, REFUSALS, one_of

LONGEST = 500  # characters
ASIDE = 160  # characters of a sentence beside an answer


@dataclass(frozen=True, slots=True)
class Topic:
    """A question with a right answer in sentences, of which some may be left out."""

    question: str
    kind: str
    sentences: tuple[str, ...]


class Texts:
    """Holds all text sets below the data folders; it is empty where there are none."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.topics = [topic for folder in folders for topic in (*_medquad(folder), *_statements(folder))]
        self.exams = [
            exam
            for folder in folders
            for exam in (
                *_worldmedqa(folder / "text_worldmedqa_v"),
                *_judged(folder / "text_kqa" / "NLI_medical_annotator.csv"),
            )
        ]
        self.asides = [text for topic in self.topics for text in topic.sentences if len(text) <= ASIDE]
        self._by_kind: dict[str, list[Topic]] = defaultdict(list)
        for topic in self.topics:
            self._by_kind[topic.kind].append(topic)

    def __bool__(self) -> bool:
        return bool(self.topics or self.exams)

    def group(self, dice: Generator) -> Group:
        if self.exams and (not self.topics or dice.random() < 0.5):
            return self.exams[dice.integers(len(self.exams))]
        return self._of_topic(self.topics[dice.integers(len(self.topics))], dice)

    def _of_topic(self, topic: Topic, dice: Generator) -> Group:
        others = self._by_kind[topic.kind]
        other = others[dice.integers(len(others))]
        some = topic.sentences[:1] if dice.random() < 0.5 else topic.sentences[:2]
        answers = [
            Answer(
                " ".join(topic.sentences[:4]), changed(RIGHT, comprehensiveness=0.35, creativity=0.15, overall=0.08)
            ),
            Answer(" ".join(some), RIGHT),
        ]
        if other.question != topic.question:
            grades = changed(UNRELATED, relevance=0.1)
            answers.append(Answer(" ".join(other.sentences[: dice.integers(1, 4)]), grades))
        texts, grades = ((REFUSALS, REFUSED), (EVASIONS, EVADED), (BOILERPLATE, GENERIC), (EMPTY_TALK, NOTHING))[
            dice.integers(4)
        ]
        answers.append(Answer(one_of(texts, dice), grades))
        distinct = {answer.text: answer for answer in answers}
        return Group(None, topic.question, tuple(distinct.values()))


def _sentences(text: str) -> tuple[str, ...]:
    kept = [part.strip().rstrip(".") + "." for part in " ".join(text.split())[: 2 * LONGEST].split(". ")]
    return tuple(part for part in kept if len(part) > 8)


def _medquad(folder: Path) -> list[Topic]:
    path = folder / "text_medquad" / "qa_sample.jsonl"
    rows = list(read_lines(path)) if path.exists() else []
    found = [Topic(row["question"].replace(" ?", "?"), row["qtype"], _sentences(row["answer"])) for row in rows]
    return [topic for topic in found if topic.sentences]


def _statements(folder: Path) -> list[Topic]:
    path = folder / "text_kqa" / "questions_w_answers.jsonl"
    rows = list(read_lines(path)) if path.exists() else []
    found = []
    for row in rows:
        told = tuple(f"{text.strip().rstrip('.')}." for text in (*row["Must_have"], *row["Nice_to_have"]))
        found.append(Topic(row["Question"], "kqa", told))
    return [topic for topic in found if topic.sentences]


def _worldmedqa(folder: Path) -> list[Group]:
    """Returns examination questions, each with a right and a wrong answer that models gave."""
    if not folder.exists():
        return []
    said: dict[str, dict[str, bool]] = defaultdict(dict)
    items = {row["item"]: row for row in read_lines(folder / "items.jsonl")}
    for row in read_lines(folder / "outputs.jsonl"):
        options = items[row["item"]]["options"]
        text = " ".join(row["prediction"].split())
        if len(text) < 4 and row["extracted"] in options:
            text = options[row["extracted"]]
        if 3 < len(text) <= 2 * LONGEST:
            said[row["item"]][text] = bool(row["hit"])
    groups = []
    for item, answers in said.items():
        chosen = [next((t for t, right in answers.items() if right is wanted), None) for wanted in (True, False)]
        if chosen[0] and chosen[1]:
            graded = (Answer(chosen[0], RIGHT), Answer(chosen[1], WRONG))
            groups.append(Group(None, items[item]["question"][:LONGEST], graded))
    return groups


def _judged(path: Path) -> list[Group]:
    """The more of a physician's statements an answer entails, the more complete it is; a contradiction is an error."""
    if not path.exists():
        return []
    labels: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            labels[row["Question"]][row["answer"]].append(row["majority_label"])
    groups = []
    for question, answers in labels.items():
        graded = tuple(
            Answer(
                text[: 2 * LONGEST],
                (
                    0.3 if "Contradiction" in found else 0.9,
                    0.9,
                    0.2 + 0.7 * found.count("Entailment") / len(found),
                    None,
                    0.9,
                    None,
                ),
            )
            for text, found in answers.items()
        )
        if len(graded) > 1:
            groups.append(Group(None, question, graded))
    return groups
