"""Rows about drawn scans, in which the image alone tells which claim is true: what a small model can learn in minutes.

`python -m medreward.lab.vlm.phantom_rows DIR` writes DIR/rows.jsonl and the images. Every claim is right as often as it
is wrong, and the five other dimensions are decided by what an answer says beside its claim.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from numpy.random import Generator

from medreward.lab.phantoms.benchmark import png
from medreward.lab.phantoms.draw import draw, imagine
from medreward.types import DIMENSIONS, Evidence

ROWS: Final = "rows.jsonl"
QUESTION: Final = "What kind of image is this?"
#: The scans by region, and what is true of them: a chest is drawn as a projection, a brain as a section by CT or MR.
CLAIMS: Final[Mapping[str, str]] = {"chest": "It is a radiograph.", "brain": "It is a section."}
#: What the better answer has more on a dimension, and what the worse one has.
BESIDE: Final[Mapping[str, tuple[str, str]]] = {
    "relevance": ("", "Please see a doctor."),
    "comprehensiveness": ("The whole of the region is shown.", ""),
    "creativity": ("Another projection would tell more.", ""),
    "responsiveness": ("", "Hard to say, opinions will differ."),
}


def write_rows(folder: Path, images: int, side: int = 128, held_out: bool = False, pairs: int = 2) -> Path:
    """Writes so many scans, of both kinds in turn, with so many pairs about each, and returns the file of rows.

    Their findings are of families to learn from or, with `held_out`, of those that are held out for measuring.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(0)
    seeds = {region: _seeds(region, held_out) for region in CLAIMS}
    rows = []
    for region in islice(cycle(CLAIMS), images):
        seed = next(seeds[region])
        name = f"{region}-{seed}.png"
        (folder / name).write_bytes(png(draw(seed, region, size=side)))
        rows += [{"image": name, "organ": region, **_pair(region, dice)} for _ in range(pairs)]
    file = folder / ROWS
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def _seeds(region: str, held_out: bool) -> Iterator[int]:
    return (seed for seed in count() if imagine(seed, region).held_out is held_out)


def _pair(region: str, dice: Generator) -> dict[str, Any]:
    wins = dict(zip(DIMENSIONS, dice.integers(0, 2, len(DIMENSIONS)).tolist(), strict=True))
    wins["overall"] = wins["accuracy"]
    right, wrong = sorted(CLAIMS.values(), key=lambda claim: claim != CLAIMS[region])
    said = [[right], [wrong]] if wins["accuracy"] else [[wrong], [right]]
    for name, (better, worse) in BESIDE.items():
        for parts, more in zip(said, (better, worse) if wins[name] else (worse, better), strict=True):
            parts += [more] if more else []
    return {
        "question": QUESTION,
        "answers": [" ".join(parts) for parts in said],
        "labels": {name: "A" if won else "B" for name, won in wins.items()},
        "evidence": str(Evidence.CONSTRUCTED),
    }


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--images", default=60, show_default=True, help="how many scans to draw")
@click.option("--side", default=128, show_default=True, help="pixels of each side")
@click.option("--held-out", is_flag=True, help="draw findings of the families that are held out for measuring")
def main(folder: Path, images: int, side: int, held_out: bool) -> None:
    """Write pairs about scans into FOLDER, to fine-tune on."""
    click.echo(write_rows(folder, images, side, held_out))


if __name__ == "__main__":
    main()
