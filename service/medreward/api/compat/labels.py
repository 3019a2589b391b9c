"""Images in shapes that have text alone: the label of a sample names its image, and may hold its question."""

import re
from typing import Final

import msgspec

from medreward.errors import Code, ItemError
from medreward.types import Base64Image, FileImage, ImageSource, StoredImage, UrlImage

SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
DATA_URL: Final = re.compile(r"data:[^,]{0,100};base64,", re.IGNORECASE)


class Label(msgspec.Struct):
    """What a label says of its sample. Other keys, such as the right answer, are left to the trainer."""

    image: str | None = None
    images: list[str] = []
    question: str | None = None
    department: str = ""

    @property
    def sources(self) -> tuple[ImageSource, ...]:
        """Returns the images that the label names, in their order."""
        return tuple(map(image_named, [self.image] if self.image else self.images))


def read_label(label: object) -> Label:
    """Returns what a label says: nothing (null or empty), an image, or a JSON object of image and question. Raises
    ItemError for anything else."""
    try:
        if isinstance(label, dict):
            return msgspec.convert(label, Label)
        if isinstance(label, str) and label.lstrip().startswith("{"):
            return msgspec.json.decode(label, type=Label)
    except (ValueError, RecursionError):
        detail = (
            'a label that is a JSON object must be like {"image": "…", "question": "…", "department": "…"}, all of '
            'them texts, or have "images", a list of texts'
        )
        raise ItemError(Code.IMAGE_INVALID, detail, "label") from None
    if label is None or isinstance(label, str):
        return Label(image=label)
    detail = "a label must be a sha256, a data URL, a path, an object of image and question, or null"
    raise ItemError(Code.IMAGE_INVALID, detail, "label")


def image_named(name: str) -> ImageSource:
    """Returns the image with this name: the sha256 of one that was stored, a data URL, a URL, or else a path. Raises
    ItemError for a data URL that is not base64."""
    if SHA256.fullmatch(name):
        return StoredImage(name.lower())
    if name[:5].lower() == "data:":
        if not (start := DATA_URL.match(name)):
            raise ItemError(Code.IMAGE_INVALID, "a data URL must be like data:image/png;base64,…", "image")
        return Base64Image(name[start.end() :])
    if name.startswith(("https://", "http://")):
        return UrlImage(name)
    return FileImage(name)
