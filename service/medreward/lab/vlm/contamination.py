"""Rows to learn from that a benchmark has too: by image, also in another file format, or by text."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from io import BytesIO

from PIL import Image

from medreward.errors import ConfigurationError
from medreward.lab.training.served import Picture
from medreward.lab.vlm.examples import Example

log = logging.getLogger("medreward")
TELLING = 40  # characters from which a graded answer is known again by its text alone


def clean(examples: Sequence[Example], benchmark: Iterable[Example], contaminated: str) -> list[Example]:
    """Returns the examples without those that the benchmark has too.

    Fails with a ConfigurationError that counts them where the recipe does not say that they are to be dropped.
    """
    measured = list(benchmark)
    pictures = {_pixels(picture) for picture in {example.picture for example in measured} if picture}
    texts = {text for example in measured for text in _texts(example)}
    known = {picture: _pixels(picture) in pictures for picture in {example.picture for example in examples} if picture}
    same = [
        example
        for example in examples
        if (example.picture and known[example.picture]) or any(text in texts for text in _texts(example))
    ]
    if same and contaminated == "refuse":
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
    """Returns what the example is known by without its image: its question with both answers, or with a long one."""
    question, *answers = (" ".join(text.casefold().split()) for text in (example.question, *example.answers))
    known = ["\n".join([question, *sorted(answers)])] if len(answers) == 2 else []
    return known + [f"{question}\n{answer}" for answer in answers if len(answer) >= TELLING]
