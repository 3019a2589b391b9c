"""Draws the phantoms that the page at `GET /` offers to try: `python -m medreward.lab.phantoms.page FOLDER`.

Their questions and answers stand in the page's phantoms.js.
"""

import sys
from pathlib import Path
from typing import Final

from PIL import Image

from medreward.lab.phantoms.draw import draw

#: The seed of each region's phantom: a pleural effusion on the left, a large haemorrhage in the right temporal lobe, a
#: large nodule in the right lung, a large haemorrhage of the retina.
SEEDS: Final = {"chest": 9, "brain": 8, "lung": 10, "eye": 18}
SIZE: Final = 224
COLOURS: Final = 64  # a third of the bytes, and no difference to the eye


def main(folder: Path) -> None:
    for region, seed in SEEDS.items():
        picture = Image.fromarray(draw(seed, region, size=SIZE).pixels)
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(folder / f"phantom-{region}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
