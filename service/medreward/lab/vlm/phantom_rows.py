"""Phantoms as rows to fine-tune on, with the families and phrasings left out that are held out for measuring.

`python -m medreward.lab.vlm.phantom_rows DIR --images N` writes DIR/rows.jsonl and the images.
"""

import json
from collections.abc import Collection, Iterator
from itertools import islice
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
SIDE: Final = 128
DECISIVE: Final = 0.5  # share of pairs that differ in what they claim and in nothing else


def write_rows(folder: Path, images: int, seed: int = 0, kinds: Collection[str] = (), turns: int = 1) -> int:
    """Writes so many images of all regions in turn and a pair for each question about them; returns the pairs.

    Everything is asked `turns` times, in other words. With `kinds`, questions of these kinds alone are asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng([seed, FIRST_SEED])
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for phantom in _taught(images, seed):
        name = f"{phantom.region}-{phantom.seed}.png"
        (folder / name).write_bytes(png(draw(phantom.seed, phantom.region, size=SIDE).pixels))
        for turn in range(turns):
            for question in questions(phantom, turns * phantom.seed + turn, TAUGHT):
                wanted = not question.held_out and (not kinds or question.kind in kinds)
                if wanted and (row := _row(phantom, question, dice)):
                    rows[name, question.text] = {"image": name, **row}
    lines = (json.dumps(row) + "\n" for row in rows.values())
    (folder / ROWS).write_text("".join(lines), "utf-8")
    return len(rows)


def _taught(count: int, seed: int) -> Iterator[Phantom]:
    numbers = range(FIRST_SEED * (1 + seed), FIRST_SEED * (2 + seed))
    drawn = (imagine(number, REGIONS[place % len(REGIONS)]) for place, number in enumerate(numbers))
    yield from islice((phantom for phantom in drawn if not phantom.held_out), count)


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
@click.option("--kind", "kinds", multiple=True, help="ask questions of this kind alone; may be repeated")
@click.option("--turns", default=1, show_default=True, help="how often everything is asked, in other words")
def main(folder: Path, images: int, seed: int, kinds: tuple[str, ...], turns: int) -> None:
    """Write pairs about phantoms into FOLDER, to fine-tune on."""
    click.echo(f"{folder / ROWS}: {write_rows(folder, images, seed, kinds, turns)} pairs about {images} images")


if __name__ == "__main__":
    main()
