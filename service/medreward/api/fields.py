"""Fields that both doors read and name the same way."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from medreward.errors import Code, RequestError
from medreward.types import Failed, Lane

E = TypeVar("E", bound=StrEnum)

DEPARTMENT_CHARS: Final = 64
MOST_FRAMES: Final = 1024  # of one file in one request; the limit on images is lower


class OnUnscored(StrEnum):
    """What a door that decides answers where a response cannot be scored."""

    VERDICT = "verdict"
    PROBLEM = "problem"


def option(kind: type[E], text: str, field: str) -> E:
    """Returns the member of `kind` that this text names; refuses a text that names none."""
    try:
        return kind(text)
    except ValueError:
        raise RequestError(Code.INVALID_FIELD, f"this must be one of: {', '.join(kind)}", field) from None


@dataclass(frozen=True, slots=True)
class ItemPointers:
    """JSON pointers to one item of a request and to its parts, as the client wrote them."""

    item: str  # empty where the request itself is the item
    image: str = "images/0"
    response: str | None = None  # None where responses are a list

    def to(self, failed: Failed) -> str:
        """Returns the pointer to what the engine refused: a part of the item, or all of it."""
        part = failed.error.field
        if part.startswith("/"):  # of the request, beside the items
            return part
        if part == "image":
            part = self.image
        elif part == "response":
            part = self.response or f"responses/{failed.response}"
        return f"{self.item}/{part}" if part else self.item


def pointer_to(failed: Failed) -> str:
    """Returns the pointer into a request of the full form, which lists items, images and responses."""
    return ItemPointers(f"/items/{failed.item}").to(failed)


def read_lane(text: str | None, default: Lane = Lane.BULK) -> Lane:
    """Returns the lane that is asked for, the default where none is; refuses the name of one that does not exist."""
    return option(Lane, text or default, "X-Lane")


def read_deadline(text: str | None) -> float | None:
    """Returns the deadline in seconds, None where there is none; refuses all but whole milliseconds above 0."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text)):
        raise RequestError(Code.INVALID_FIELD, "this must be a whole number of milliseconds above 0", "X-Deadline-Ms")
    return int(text) / 1000
