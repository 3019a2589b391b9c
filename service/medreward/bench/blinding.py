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
    NONE = "none"
    SHUFFLED = "shuffled"


def with_images(cases: Sequence[Case], images: Images) -> Sequence[Case]:
    """Returns the cases with what is shown in place of their images.

    Blank: a plain grey image of the same size. None: no image at all. Shuffled: for each image another one of the set,
    always the same.
    """
    if images is Images.OWN:
        return cases
    if images is Images.NONE:
        return [replace(case, image=b"") for case in cases]
    distinct = {hashlib.sha256(case.image).digest(): case.image for case in cases}
    if images is Images.BLANK:
        others = {image: _grey(image) for image in distinct.values()}
    else:
        in_turn = [distinct[digest] for digest in sorted(distinct)]  # by digest is as good as at random
        if len(in_turn) < 2:
            raise ConfigurationError("--images shuffled needs a set with two different images")
        others = dict(zip(in_turn, [*in_turn[1:], in_turn[0]], strict=True))
    return [replace(case, image=others[case.image]) for case in cases]


def _grey(image: bytes) -> bytes:
    from PIL import Image, UnidentifiedImageError

    try:
        size = Image.open(BytesIO(image)).size
    except UnidentifiedImageError:
        raise ConfigurationError(
            "an image is of a kind that Pillow cannot read, so its size is not known and no blank one can be made"
        ) from None
    file = BytesIO()
    Image.new("L", size, 128).save(file, "PNG")
    return file.getvalue()
