"""What the routes that decide in foreign shapes have in common: images as those shapes write them, and one call of the
screening, which is always interactive."""

from typing import Any, Final

from fastapi import Request
from pydantic import Field

from medreward.api.compat.asking import Foreign, without_unread_system
from medreward.api.compat.labels import DATA_URL, SHA256
from medreward.api.fields import DEPARTMENT_CHARS, read_deadline
from medreward.api.observing import Entry
from medreward.api.openapi import REFERENCE
from medreward.api.rest.leaving import cancelled_if_left
from medreward.api.rest.middleware import engine_of, entry_of
from medreward.api.rest.screen import screening_of
from medreward.screening.screening import Screened, ScreenRequest
from medreward.types import Base64Image, ImageSource, Item, Lane, ScoreRequest, StoredImage, UrlImage, Verdict

#: From the best to the worst.
ORDER: Final = (Verdict.ALLOW, Verdict.REVIEW, Verdict.BLOCK, Verdict.UNSCORED)


class Choice(Foreign):
    """Which policy decides, and whose thresholds."""

    policy: str | None = Field(None, max_length=64, description="name of the policy; by default the server's")
    department: str = Field("", max_length=DEPARTMENT_CHARS, description="whose thresholds decide")


def described(shape: type[Foreign]) -> dict[str, Any]:
    """Returns what openapi.json says of the body of a route that decides."""
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model=shape.__name__)}}}
    return {"requestBody": {"required": True, "content": content}}


def image_sent(text: str) -> ImageSource:
    """Returns the image that a text is: a data URL, a URL, the sha256 of one that was stored, or else base64. What is
    none of these is refused where the image is read, so that its answer is unscored."""
    if text.startswith(("https://", "http://")):
        return UrlImage(text)
    if SHA256.fullmatch(text):
        return StoredImage(text.lower())
    start = DATA_URL.match(text)
    return Base64Image(text[start.end() :] if start else text)


def interactive(request: Request) -> Entry:
    """Puts the request into the interactive lane, and returns its entry. Refuses a key that may not use that lane."""
    entry = entry_of(request.scope)
    entry.lane = Lane.INTERACTIVE
    entry.caller.check_lane(entry.lane)
    return entry


async def decide(request: Request, item: Item, choice: Choice) -> Screened:
    """Returns the decision on each response of the item; refuses what `POST /v1/screen` refuses."""
    entry, headers = entry_of(request.scope), request.headers
    asked = ScoreRequest(
        id=entry.request_id,
        items=(without_unread_system(item, engine_of(request).serving.model),),
        lane=entry.lane,
        deadline_s=read_deadline(headers.get("x-deadline-ms")),
        fingerprint=headers.get("x-model-fingerprint"),
        tenant=entry.caller.tenant,
        trace=entry.recorded,
    )
    entry.caller.charge(asked.triples)
    async with cancelled_if_left(request):
        screened = await screening_of(request).screen(
            ScreenRequest(asked, choice.policy, (choice.department,), entry.caller.id)
        )
    entry.add(screened.response)
    return screened
