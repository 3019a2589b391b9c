"""Other images than the cases' own: what a model still gets right without seeing is no understanding of images."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from io import BytesIO

from medreward.bench.cases import Case
from medreward.errors import ConfigurationError


class Images(StrEnum):
    OWN = "own"
    BLANK = "blank"
    SHUFFLED = "shuffled"


def with_images(cases: Sequence[Case], images: Images) -> Sequence[Case]:
    """Blank: grey, of the same size. Shuffled: each image gives way to another one of the set, always the same."""
    if images is Images.OWN:
        return cases
    distinct = {hashlib.sha256(case.image).digest(): case.image for case in cases}
    if images is Images.BLANK:
        others = {image: _grey(image) for image in distinct.values()}
    else:
        in_turn = [distinct[digest] for digest in sorted(distinct)]  # by digest is as good as at random
        if len(in_turn) < 2:
            raise ConfigurationError("shuffled images need two different ones")
        others = dict(zip(in_turn, [*in_turn[1:], in_turn[0]], strict=True))
    return [replace(case, image=others[case.image]) for case in cases]


def _grey(image: bytes) -> bytes:
    from PIL import Image, UnidentifiedImageError

    try:
        size = Image.open(BytesIO(image)).size
    except UnidentifiedImageError:
        raise ConfigurationError(
            "an image is of a kind that Pillow cannot read; there is no blank one for it"
        ) from None
    file = BytesIO()
    Image.new("L", size, 128).save(file, "PNG")
    return file.getvalue()
