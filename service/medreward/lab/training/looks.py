"""What the fixed part of a tower makes of each image, in a few views, made once and kept in one file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from medreward.lab.training.images import Images, shaken
from medreward.lab.training.tower import Tower

AT_ONCE: Final = 16


class Looks:
    """Holds half-precision arrays by name, several views of each."""

    def __init__(self, values: NDArray[np.float16], names: Sequence[str]) -> None:
        self._values = values
        self._places = {name: place for place, name in enumerate(names)}

    def any_view(self, names: Sequence[str], dice: Generator) -> NDArray[np.float16]:
        """Returns one view of each, as the dice fall."""
        views = dice.integers(self._values.shape[1], size=len(names))
        return self._values[[self._places[name] for name in names], views]

    def first_view(self, names: Sequence[str]) -> NDArray[np.float16]:
        """Returns the first view of each."""
        return self._values[[self._places[name] for name in names], 0]


@torch.inference_mode()
def looked(
    tower: Tower, images: Images, names: Sequence[str], sideless: set[str], views: int, precision: str, cache: Path
) -> Looks:
    """Returns what a tower makes of each image: as it is, then shaken, every second mirrored where no side is named.

    They are made only where the cache has no file of the same images, views and weights.
    """
    names = sorted(names)
    digest = hashlib.sha256("\n".join([tower.fixed, str(views), precision, *names]).encode())
    for value in tower.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    path = cache / f"looks-{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        draft = path.with_suffix(".tmp.npy")
        shape = tower.look(torch.from_numpy(images[names[:1]])).shape[1:]
        values = np.lib.format.open_memmap(draft, "w+", np.float16, (len(names), views, *shape))
        for view in range(views):
            for start in range(0, len(names), AT_ONCE):
                part = names[start : start + AT_ONCE]
                pixels = images[part]
                if view:
                    mirrored = [view % 2 == 1 and name in sideless for name in part]
                    pixels = shaken(pixels, mirrored, [view, start])
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    values[start : start + AT_ONCE, view] = tower.look(torch.from_numpy(pixels)).half().numpy()
        values.flush()
        draft.replace(path)
    return Looks(np.load(path, mmap_mode="r"), names)
