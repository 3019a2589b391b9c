"""Draws a contact sheet, `python -m medreward.lab.phantoms.sheet OUT`: each scene without and with its findings."""

import sys
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from medreward.lab.phantoms.draw import Phantom, draw, imagine, without_findings
from medreward.lab.phantoms.scenes import SCENES

TILE: Final = 84
COLUMNS: Final = 8


def sheet() -> Image.Image:
    """Returns the sheet: two scenes beside each other in every row."""
    rows = [_row(number) for number in range(len(SCENES))]
    rows += [np.zeros_like(rows[0])] * (len(rows) % 2)
    return Image.fromarray(np.vstack([np.hstack(rows[at : at + 2]) for at in range(0, len(rows), 2)]))


def _row(number: int) -> np.ndarray:
    phantoms = [_with(number, plan.kind.name) for plan in SCENES[number].plans[: COLUMNS - 1]]
    pictures = [Image.fromarray(phantom.pixels) for phantom in (without_findings(phantoms[0]), *phantoms)]
    tiles = [np.asarray(picture.resize((TILE, TILE), Image.Resampling.BOX)) for picture in pictures]
    return np.hstack(tiles + [np.zeros_like(tiles[0])] * (COLUMNS - len(tiles)))


def _with(number: int, kind: str) -> Phantom:
    """Returns the first phantom of the scene with this kind of finding."""
    scene = SCENES[number]
    family = next(plan.kind.family for plan in scene.plans if plan.kind.name == kind)
    seed = 0
    while True:
        seed += 1
        phantom = imagine(seed, scene.region, family)
        if phantom.scene == number and phantom.findings[0].kind == kind:
            return draw(seed, scene.region, family)


if __name__ == "__main__":
    # Few colours: a third of the bytes.
    sheet().quantize(160).save(Path(sys.argv[1]), optimize=True)
