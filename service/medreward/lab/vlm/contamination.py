"""Rows to learn from that a benchmark has too: by image, also in another file format, or by text."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Final

from PIL import Image

from medreward.errors import ConfigurationError
from medreward.lab.training.served import Picture
from medreward.lab.vlm.examples import Example
from medreward.lab.vlm.recipe import Data

log = logging.getLogger("medreward")
TELLING: Final = 80  # characters; shorter questions with yes and no are asked of many images


def clean(examples: Sequence[Example], benchmark: Iterable[Example], settings: Data) -> list[Example]:
    """Returns the examples without those that the benchmark has too.

    Fails with a ConfigurationError that counts them where the recipe does not say that they are to be dropped.
    """
    measured = list(benchmark)
    by_image, by_text = ("image" in settings.compare), ("text" in settings.compare)
    shown = {e.picture for e in (*examples, *measured) if e.picture and by_image}
    pixels = {picture: _pixels(picture) for picture in shown}
    pictures = {pixels[e.picture] for e in measured if e.picture in pixels}
    texts = {text for e in measured for text in _texts(e) if by_text}
    same = [
        example
        for example in examples
        if (example.picture and pixels.get(example.picture, "") in pictures) or texts.intersection(_texts(example))
    ]
    if same and settings.contaminated == "refuse":
        raise ConfigurationError(
            f"{len(same)} of {len(examples)} rows have an image or the texts of a case of the benchmark, "
            f"{same[0].where} first: leave them out, or set data.contaminated to drop"
        )
    if same:
        log.warning(f"{len(same)} rows are not learnt from, for the benchmark has their images or texts")
    gone = set(map(id, same))
    return [example for example in examples if id(example) not in gone]


def _pixels(picture: Picture) -> str:
    """Returns a digest of what the picture shows, which another lossless format does not change."""
    data = picture.read()
    try:
        shown = Image.open(BytesIO(data)).convert("RGB")
    except OSError:  # a DICOM file, say: known by its bytes
        return picture.name
    return hashlib.sha256(repr(shown.size).encode() + shown.tobytes()).hexdigest()


def _texts(example: Example) -> list[str]:
    """Returns the question with its answers, where that is long enough not to be alike by chance."""
    question, *answers = (" ".join(text.casefold().split()) for text in (example.question, *example.answers))
    text = "\n".join([question, *sorted(answers)])
    return [text] if len(text) >= TELLING else []
