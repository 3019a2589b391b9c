"""What both doors read the same way from headers and metadata."""

from enum import StrEnum
from typing import TypeVar

from medreward.errors import Code, RequestError
from medreward.types import Failed, Lane

E = TypeVar("E", bound=StrEnum)


def option(kind: type[E], written: str, field: str) -> E:
    try:
        return kind(written)
    except ValueError:
        raise RequestError(Code.INVALID_FIELD, f"this must be one of: {', '.join(kind)}", field) from None


def pointer_to(failed: Failed) -> str:
    """JSON pointer, into the full form of a request, to what the engine named as a part of the item."""
    part = {"image": "images/0", "response": f"responses/{failed.response}"}.get(failed.error.field, failed.error.field)
    return f"/items/{failed.item}/{part}" if part else f"/items/{failed.item}"


def read_lane(written: str | None) -> Lane:
    return option(Lane, written or Lane.BULK, "X-Lane")


def read_deadline(written: str | None) -> float | None:
    """Seconds, from whole milliseconds."""
    if written is None:
        return None
    if not (written.isascii() and written.isdigit() and len(written) <= 9 and int(written)):
        raise RequestError(Code.INVALID_FIELD, "this must be a whole number of milliseconds above 0", "X-Deadline-Ms")
    return int(written) / 1000
