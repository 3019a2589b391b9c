"""Makes a benchmark of phantoms in the official layout of Med-RewardBench, from a seed."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

from PIL import Image

from medreward.lab.phantoms.answer import Answer, Claim, Insight, Recipe, written
from medreward.lab.phantoms.ask import PHRASINGS, Question, questions
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.draw import NORMAL, REGIONS, Phantom, draw, imagine
from medreward.types import DIMENSIONS

Choice = Literal["A", "B"]
BLOCK: Final = 10
KINDS: Final = tuple(PHRASINGS)
# A refusal loses to a right answer and beats a wrong one on accuracy, so it tells nothing by itself.
CLAIMS: Final[tuple[Claim, ...]] = ("right", "wrong")
# The better one first.
INSIGHTS: Final[tuple[tuple[Insight, Insight], ...]] = (
    ("insight", "none"),
    ("insight", "boilerplate"),
    ("none", "boilerplate"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A question about a phantom, two answers, and which is better on each dimension."""

    question_id: str
    organ: str
    phantom: Phantom
    question: Question
    answer1: str
    answer2: str
    human_answer: dict[str, Choice]
    kind: str
    family: str
    held_out_family: bool
    held_out_phrasing: bool


def cases(seed: int = 0, count: int = 390) -> Iterator[Case]:
    """Yields cases of all regions in turn. The two answers of a case differ on every dimension."""
    for number in range(count):
        yield _case(seed, number)


def digest(made: Iterable[Case]) -> str:
    """Returns the digest of pixels, texts and labels, which is the same on every machine."""
    total = hashlib.sha256()
    for case in made:
        labels = [case.human_answer[dimension] for dimension in DIMENSIONS]
        texts = [case.question_id, case.organ, case.question.text, case.answer1, case.answer2, *labels]
        total.update(json.dumps([texts, case.phantom.pixels.shape]).encode())
        total.update(case.phantom.pixels.tobytes())
    return f"sha256:{total.hexdigest()}"


def write(directory: Path, seed: int = 0, count: int = 390) -> str:
    """Writes the cases in the official layout below the directory and returns their digest."""
    made = list(cases(seed, count))
    labels, tables = directory / "pair_gt_all", directory / "pair_gt_all" / "parquet"
    tables.mkdir(parents=True, exist_ok=True)
    for organ in REGIONS:
        rows = [case for case in made if case.organ == organ]
        if rows:
            lines = (
                json.dumps({"question_id": case.question_id, "human_answer": case.human_answer}) + "\n" for case in rows
            )
            (labels / f"{organ}.jsonl").write_text("".join(lines), encoding="utf-8")
            _write_table(tables / f"{organ}.parquet", rows)
    return digest(made)


def png(phantom: Phantom) -> bytes:
    """Returns the phantom's picture as a PNG file."""
    file = BytesIO()
    Image.fromarray(phantom.pixels).save(file, "PNG")
    return file.getvalue()


def _write_table(file: Path, rows: list[Case]) -> None:
    import pyarrow
    import pyarrow.parquet

    table = [
        {
            "question_id": case.question_id,
            "image": {"bytes": png(case.phantom), "path": f"{case.question_id}.png"},
            "question": case.question.text,
            "answer1_text": case.answer1,
            "answer2_text": case.answer2,
            "modality_type": case.organ,
            "question_type": case.kind,
        }
        for case in rows
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), file)


def _case(seed: int, number: int) -> Case:
    organ, place = REGIONS[number % len(REGIONS)], number // len(REGIONS)
    dice = Dice("case", seed, number)
    better = _balanced(seed, organ, place)
    pair = None
    while pair is None:
        phantom, question = _asked(organ, dice)
        pair = _pair(phantom, question, better, dice)
    phantom = draw(phantom.seed, organ)
    first, second = pair
    labels: dict[str, Choice] = {name: "A" if first.grades[name] > second.grades[name] else "B" for name in DIMENSIONS}
    families = [finding.family for finding in phantom.findings]
    return Case(
        f"phantom-{seed}-{number:05}",
        organ,
        phantom,
        question,
        first.text,
        second.text,
        labels,
        question.kind,
        families[0] if families else NORMAL,
        phantom.held_out,
        question.held_out,
    )


def _asked(organ: str, dice: Dice) -> tuple[Phantom, Question]:
    """Returns a phantom and a question. The kind of question is drawn first, so that no answer is more frequent."""
    while True:
        kind = dice.pick(KINDS)
        for _ in range(60):
            seed = dice.below(1 << 48)
            phantom = imagine(seed, organ)
            for question in questions(phantom, seed):
                if question.kind == kind:
                    return phantom, question


def _balanced(seed: int, organ: str, place: int) -> dict[str, bool]:
    """Returns for each dimension whether the first answer is the better one: in half of every ten cases of a region."""
    return {
        name: Dice("balance", seed, organ, name, place // BLOCK).shuffled([step % 2 == 0 for step in range(BLOCK)])[
            place % BLOCK
        ]
        for name in DIMENSIONS
    }


def _pair(phantom: Phantom, question: Question, better: dict[str, bool], dice: Dice) -> tuple[Answer, Answer] | None:
    """Returns two answers that differ on every dimension; either may be the longer one. None if a recipe gives none."""
    first, second = _recipes(better, dice)
    longer_first = dice.chance(0.5)
    pair = None
    for wordy in [*dice.shuffled(((False, False), (True, True))), (longer_first, not longer_first)] * 2:
        one = written(phantom, question, first, dice, wordy[0])
        two = written(phantom, question, second, dice, wordy[1])
        if one is None or two is None:
            return None
        pair = one, two
        if (len(one.text) > len(two.text)) is longer_first:
            break
    return pair


def _recipes(better: dict[str, bool], dice: Dice) -> tuple[Recipe, Recipe]:
    """Returns the recipes of both answers. `better` tells on which dimensions the first one must win."""
    style = dice.below(10)
    if style == 0:
        claim: Claim = dice.pick(CLAIMS)
        given = Recipe(claim, dice.pick(("plain", "full")), dice.pick(("none", "insight")))
        empty = dice.pick((Recipe("none", manner="refusal"), Recipe("none", manner="asks_back")))
        return (given, empty) if better["accuracy"] is (claim == "right") else (empty, given)
    insights = dice.pick(INSIGHTS)
    sides = []
    for first in (True, False):
        won = {name: answer is first for name, answer in better.items()}
        claim = "right" if won["accuracy"] else ("slip" if style == 1 else "wrong")
        # A wrong detail needs details; as often a full answer is the right one, so that fullness tells nothing.
        complete = {1: not won["accuracy"], 2: won["accuracy"]}.get(style, won["comprehensiveness"])
        sides.append(
            Recipe(
                claim,
                "full" if complete else "terse",
                insights[0] if won["creativity"] else insights[1],
                "direct" if won["responsiveness"] else "hedged",
                "clean" if won["relevance"] else "wandering",
            )
        )
    return sides[0], sides[1]
