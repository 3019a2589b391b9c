"""Phantoms as rows to fine-tune on, with the families and phrasings left out that are held out for measuring.

`python -m medreward.lab.vlm.phantom_rows DIR --images N` writes DIR/rows.jsonl and the images.
"""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from numpy.random import Generator

from medreward.lab.phantoms.answer import Answer, answers
from medreward.lab.phantoms.ask import Question, questions
from medreward.lab.phantoms.draw import REGIONS, Phantom, draw, imagine
from medreward.lab.training.images import png
from medreward.lab.training.phantoms import FIRST_SEED, TAUGHT
from medreward.types import DIMENSIONS, Evidence

ROWS: Final = "rows.jsonl"
DECISIVE: Final = 0.5  # share of pairs that differ in what they claim and in nothing else


def write_rows(
    folder: Path, images: int, seed: int = 0, side: int = 128, regions: Collection[str] = REGIONS, kind: str = ""
) -> int:
    """Writes so many images of these regions in turn, a pair for each question about them, and returns the pairs.

    With `kind`, questions of that kind alone are asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng([seed, FIRST_SEED])
    written = 0
    with (folder / ROWS).open("w", encoding="utf-8") as file:
        for phantom in _taught(images, seed, tuple(regions)):
            name = f"{phantom.region}-{phantom.seed}.png"
            (folder / name).write_bytes(png(draw(phantom.seed, phantom.region, size=side).pixels))
            for question in questions(phantom, phantom.seed, TAUGHT):
                if question.held_out or kind not in ("", question.kind):
                    continue
                row = _row(phantom, question, dice)
                if row:
                    file.write(json.dumps({"image": name, **row}) + "\n")
                    written += 1
    return written


def _taught(count: int, seed: int, regions: tuple[str, ...]) -> Iterator[Phantom]:
    first, found = FIRST_SEED * (1 + seed), 0
    for number in range(first, first + 10 * count):
        phantom = imagine(number, regions[found % len(regions)])
        if not phantom.held_out:
            found += 1
            yield phantom
            if found == count:
                return


def _row(phantom: Phantom, question: Question, dice: Generator) -> dict[str, Any] | None:
    """Returns question, two graded answers and labels; None where no two answers are there."""
    given = answers(phantom, question, phantom.seed)
    pair = _decisive(given, dice) if dice.random() < DECISIVE else None
    if pair is None:
        chosen = dice.permutation(len(given))[:2]
        pair = [given[place] for place in chosen]
    if len(pair) < 2 or pair[0].text == pair[1].text:
        return None
    pair = [pair[place] for place in dice.permutation(2)]
    labels = {name: _letter(*(answer.grades[name] for answer in pair)) for name in DIMENSIONS}
    return {
        "question": question.text,
        "answers": [answer.text for answer in pair],
        "labels": labels,
        "organ": phantom.region,
        "evidence": str(Evidence.CONSTRUCTED),
    }


def _decisive(given: list[Answer], dice: Generator) -> list[Answer] | None:
    """Returns a right and a wrong answer that are alike in all else, of either length."""
    wrong = [answer for answer in given if answer.recipe.claim == "wrong"]
    if not wrong:
        return None
    chosen = wrong[dice.integers(len(wrong))]
    alike = [
        answer
        for answer in given
        if answer.recipe.claim == "right"
        and (answer.recipe.scope, answer.recipe.insight, answer.recipe.manner, answer.recipe.focus)
        == (chosen.recipe.scope, chosen.recipe.insight, chosen.recipe.manner, chosen.recipe.focus)
    ]
    return [chosen, alike[dice.integers(len(alike))]] if alike else None


def _letter(first: float, second: float) -> str:
    return "tie" if first == second else "A" if first > second else "B"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--images", default=600, show_default=True, help="how many phantoms to draw")
@click.option("--seed", default=0, show_default=True, help="another number draws others")
def main(folder: Path, images: int, seed: int) -> None:
    """Write pairs about phantoms into FOLDER, to fine-tune on."""
    click.echo(f"{folder / ROWS}: {write_rows(folder, images, seed)} pairs about {images} images")


if __name__ == "__main__":
    main()
