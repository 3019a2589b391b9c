"""Errors as HTTP answers: one table from code to status, and `application/problem+json`."""

import math
from typing import Final

import msgspec
from fastapi import Response

from medreward.api.observing import Entry
from medreward.errors import RETRYABLE, Code, ItemError, MedRewardError
from medreward.types import Lane

HTTP_STATUS: Final[dict[Code, int]] = {
    Code.IMAGE_INVALID: 422,
    Code.IMAGE_TOO_LARGE: 413,
    Code.IMAGE_TOO_SMALL: 422,
    Code.IMAGE_KIND: 415,
    Code.IMAGE_ANIMATED: 422,
    Code.IMAGE_UNKNOWN: 404,
    Code.IMAGE_URL_REFUSED: 422,
    Code.IMAGE_FETCH_FAILED: 422,
    Code.IMAGE_REQUIRED: 422,
    Code.UNSUPPORTED_FIELD: 422,
    Code.EMPTY_QUESTION: 422,
    Code.BAD_TEXT: 422,
    Code.BAD_STEPS: 422,
    Code.TOO_LONG: 422,
    Code.NON_FINITE_SCORE: 500,
    Code.WORKER_LOST: 503,
    Code.OUT_OF_MEMORY: 503,
    Code.DEADLINE: 504,
    Code.OVERLOADED: 503,  # 429 for the interactive lane, see `problem`
    Code.INTERNAL: 500,
    Code.MALFORMED: 400,
    Code.JSON_TOO_DEEP: 400,
    Code.INVALID_FIELD: 422,
    Code.UNKNOWN_FIELD: 422,
    Code.TOO_MANY: 413,
    Code.BODY_TOO_LARGE: 413,
    Code.HEADERS_TOO_LARGE: 431,
    Code.SLOW_BODY: 408,
    Code.MEDIA_TYPE: 415,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.VERSION_CHANGED: 409,
    Code.NOT_READY: 503,
    Code.CLIENT_LEFT: 499,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.HOST_REFUSED: 400,
    Code.QUOTA_EXCEEDED: 503,  # 429 for the interactive lane
    Code.VIEWPOINT_UNKNOWN: 422,
    Code.POLICY_UNKNOWN: 404,
    Code.POLICY_REFUSED: 409,
    Code.MODEL_REFUSED: 409,
    Code.CHANGE_UNDER_WAY: 409,
    Code.ASLEEP: 503,
    Code.AUDIT_OFF: 409,
    Code.AUDIT_FAILED: 503,
}


class Unscored(ItemError):
    """A trainer's sample was not scored. Trainers ask again at a 5xx, or never: the status says if that may help."""

    @property
    def status(self) -> int:
        return 503 if self.code in RETRYABLE else 422


def problem(error: MedRewardError, entry: Entry) -> Response:
    """Returns the answer to a request that is refused for this error, and notes the error in the request's entry."""
    entry.refusal = error
    status = error.status if isinstance(error, Unscored) else HTTP_STATUS[error.code]
    if error.code in (Code.OVERLOADED, Code.QUOTA_EXCEEDED) and entry.lane is Lane.INTERACTIVE:
        status = 429
    body: dict[str, object] = {
        "type": f"urn:medreward:problem:{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": status,
        "code": error.code,
        "detail": error.detail,
        "field": error.field or None,
        "request_id": entry.request_id,
    }
    if entry.trace_id:
        body["trace_id"] = entry.trace_id
    if entry.is_oip:
        body["error"] = error.detail
    headers = {}
    if error.code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")
