"""Labelled files to try screening with: of drawn pictures, and of pairs in the layouts that `bench import` reads."""

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medreward.bench.cases import CONSTRUCTED
from medreward.bench.importing import UNKNOWN, import_pairs
from medreward.bench.screening.answers import NOT_STATED
from medreward.errors import ConfigurationError
from medreward.lab.phantoms.answer import Claim, Recipe, written
from medreward.lab.phantoms.ask import questions
from medreward.lab.phantoms.benchmark import png
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.draw import REGIONS, draw

FILE: Final = "labelled.jsonl"
CLAIMS: Final[tuple[Claim, ...]] = ("right", "wrong")


@dataclass(frozen=True, slots=True)
class Row:
    """A picture, what is asked about it, and one answer."""

    name: str
    png: bytes
    organ: str
    question: str
    response: str
    right: bool


def rows(images: int, seed: int) -> Iterator[Row]:
    """Yields a right and a wrong answer about each of so many pictures, of all regions in turn."""
    for number in range(images):
        organ, dice = REGIONS[number % len(REGIONS)], Dice("screen", seed, number)
        texts: list[str] = []
        while len(texts) < len(CLAIMS):
            phantom = draw(dice.below(1 << 48), organ)
            question = dice.pick(questions(phantom, dice.below(1 << 48)))
            wordy = dice.chance(0.5)  # both alike: nothing but its truth tells one answer from the other
            given = (written(phantom, question, Recipe(claim), dice, wordy) for claim in CLAIMS)
            texts = [answer.text for answer in given if answer]
        picture = png(phantom)
        for claim, text in zip(CLAIMS, texts, strict=True):
            yield Row(f"{organ}-{number:05}", picture, organ, question.text, text, claim == "right")


def write(folder: Path, images: int, seed: int) -> Path:
    """Writes pictures and their labelled answers into a new folder and returns the file of the labels."""
    if folder.exists():
        raise ConfigurationError(f"{folder} already exists; name a folder that does not exist yet")
    (folder / "images").mkdir(parents=True)
    lines = []
    for row in rows(images, seed):
        image = f"images/{row.name}.png"
        (folder / image).write_bytes(row.png)
        about = {"image": image, "question": row.question, "response": row.response, "right": row.right}
        lines.append(json.dumps({**about, "organ": row.organ, "set": "phantom", "evidence": CONSTRUCTED}) + "\n")
    (folder / FILE).write_text("".join(lines), "utf-8")
    return folder / FILE


def convert(layout: str, source: Path, target: Path) -> int:
    """Writes the pairs of another layout that differ in accuracy as labelled answers; returns how many answers.

    Raises ConfigurationError where the source does not have the layout, or the target exists.
    """
    pairs = [pair for pair in import_pairs(layout, source, seed=0) if "accuracy" in pair.dimensions]
    if not pairs:
        raise ConfigurationError(
            f"{source} has no pair that differs in accuracy, so that the better answer need not be right"
        )
    try:
        with target.open("x", encoding="utf-8") as file:
            for pair in pairs:
                about = {"image": b64encode(pair.image).decode(), "question": pair.question}
                parts = {"set": pair.columns.get("dataset", ""), "evidence": pair.evidence or NOT_STATED}
                organ = {} if pair.part == UNKNOWN else {"organ": pair.part}
                for response, right in ((pair.better, True), (pair.worse, False)):
                    row = {**about, "response": response, "right": right, **organ, **parts}
                    file.write(json.dumps(row) + "\n")
    except FileExistsError:
        raise ConfigurationError(f"{target} already exists; name another file") from None
    return 2 * len(pairs)
