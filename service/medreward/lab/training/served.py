"""A model folder as the server runs it, asked for the logits of rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from medreward.artifacts.manifest import Manifest
from medreward.backends.base import Group, ModelImage
from medreward.lab.training.images import Maker
from medreward.lab.training.reader import Reader
from medreward.settings import Settings
from medreward.workers.device.loading import open_backend

ROWS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture known by its name; its bytes are read when they are looked at."""

    name: str
    read: Maker = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Row:
    picture: Picture | None
    question: str
    response: str


Ask = Callable[[Sequence[Row]], NDArray[np.float32]]  # gives rows, heads, columns
Progress = Callable[[int, int], None]  # done, all


class Served:
    """Gives bit for bit what the server's own backend gives, in fp32."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        threads: int = 0,
        progress: Progress = lambda *_: None,
        device: Literal["auto", "cpu"] = "cpu",
    ) -> None:
        of_vlm = {"dtype": "fp32"} if manifest.runtime == "torch_vlm" else {}
        settings = Settings.model_validate({"device": device, "threads": threads, **of_vlm})
        self.backend = open_backend(settings, manifest, folder)
        self._reader = Reader(folder, manifest)
        self._progress = progress

    def __call__(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Returns the logits of the rows; equal rows are asked once, and each picture is read once."""
        distinct = sorted(dict.fromkeys(rows), key=_place)
        found = []
        for start in range(0, len(distinct), ROWS_AT_ONCE):
            chosen = distinct[start : start + ROWS_AT_ONCE]
            found += self.backend.score([*self._groups(chosen)])
            self._progress(start + len(chosen), len(distinct))
        at = {row: place for place, row in enumerate(distinct)}
        logits: NDArray[np.float32] = np.concatenate(found)[[at[row] for row in rows]]
        return logits

    def group(self, image: ModelImage | None, question: str, responses: Sequence[str]) -> Group:
        return self._reader.group(image, question, responses)

    def image(self, digest: str, data: bytes) -> ModelImage:
        return self._reader.image(digest, data)

    def _groups(self, rows: Sequence[Row]) -> Iterator[Group]:
        for picture, about in groupby(rows, lambda row: row.picture):
            image = self.image(picture.name, picture.read()) if picture else None
            for question, asked in groupby(about, lambda row: row.question):
                yield self.group(image, question, [row.response for row in asked])


def _place(row: Row) -> tuple[str, str]:
    return row.picture.name if row.picture else "", row.question
