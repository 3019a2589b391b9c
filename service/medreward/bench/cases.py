"""What is measured on: cases with labels, what is wrong with them, and the same cases with other images."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from io import BytesIO
from typing import Final, Literal

from medreward.errors import ConfigurationError

Choice = Literal["A", "B", "tie"]
ANSWERS: Final = ("A", "B")
#: Labels made by rule, where a row says so; the official rows say nothing.
CONSTRUCTED: Final = "constructed"


@dataclass(frozen=True, slots=True)
class Case:
    """One question about one image, two answers, and which of them people (or a rule) prefer on each dimension.

    `image` is empty where a run shows no image.
    """

    question_id: str | int
    organ: str
    question: str
    answers: tuple[str, str]
    image: bytes
    labels: Mapping[str, str]
    department: str | None = None
    evidence: str | None = None
    question_type: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.organ, str(self.question_id)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a set. If it is fatal, a figure taken on the set would be wrong."""

    where: str
    id: str | int | None
    what: str
    fatal: bool

    def __str__(self) -> str:
        return f"{self.where}{'' if self.id is None else f' {self.id}'}: {self.what}"


@dataclass(frozen=True)
class DataSet:
    """Cases in the order of their files and lines."""

    cases: Sequence[Case]
    findings: Sequence[Finding] = ()
    known_digest: str | None = None

    @property
    def fatal(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.fatal]

    @cached_property
    def digest(self) -> str:
        """Returns a sha256 over what is asked and what is right; how the files are packed does not change it."""
        if self.known_digest:
            return self.known_digest
        whole = hashlib.sha256()
        for case in self.cases:
            image = hashlib.sha256(case.image).hexdigest()
            row = [case.question_id, case.organ, case.department, case.question, case.answers, image, {**case.labels}]
            whole.update(json.dumps(row, sort_keys=True).encode() + b"\n")
        return f"sha256:{whole.hexdigest()}"


class Images(StrEnum):
    """What a model is shown in place of each image. What it still gets right without seeing needs no image."""

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
        others = {image: grey(image) for image in distinct.values()}
    else:
        in_turn = [distinct[digest] for digest in sorted(distinct)]  # by digest is as good as at random
        if len(in_turn) < 2:
            raise ConfigurationError("--images shuffled needs a set with two different images")
        others = dict(zip(in_turn, [*in_turn[1:], in_turn[0]], strict=True))
    return [replace(case, image=others[case.image]) for case in cases]


def grey(image: bytes) -> bytes:
    """Returns a plain grey PNG of the image's size; raises ConfigurationError if Pillow cannot read the size."""
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
