"""A labelled file to try screening with: drawn pictures, each with a question, a right answer and a wrong one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medreward.bench.cases import CONSTRUCTED
from medreward.errors import ConfigurationError
from medreward.lab.phantoms.answer import answers
from medreward.lab.phantoms.ask import questions
from medreward.lab.phantoms.benchmark import png
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.draw import REGIONS, draw

FILE: Final = "labelled.jsonl"
SIDES: Final = (("right", True), ("wrong", False))


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
        while True:
            phantom = draw(dice.below(1 << 48), organ)
            question = dice.pick(questions(phantom, dice.below(1 << 48)))
            given = {
                one.recipe.claim: one for one in dice.shuffled(answers(phantom, question, seed)) if _is_plain(one.kind)
            }
            if all(claim in given for claim, _ in SIDES):
                break
        picture = png(phantom)
        for claim, right in SIDES:
            yield Row(f"{organ}-{number:05}", picture, organ, question.text, given[claim].text, right)  # type: ignore[index]


def _is_plain(kind: str) -> bool:
    """Returns whether the answer is a plain claim: nothing but its truth tells two of them apart."""
    return kind in ("right", "wrong", "other_side", "wrong_count")


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
