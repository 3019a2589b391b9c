"""The one family of errors. A code is stable and public; a detail is our own fixed text, never a payload's."""

from enum import StrEnum
from itertools import takewhile
from typing import Final


class Code(StrEnum):
    # what is wrong with one item
    IMAGE_INVALID = "image_invalid"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_TOO_SMALL = "image_too_small"
    IMAGE_KIND = "image_kind"
    IMAGE_ANIMATED = "image_animated"
    IMAGE_UNKNOWN = "image_unknown"
    IMAGE_URL_REFUSED = "image_url_refused"
    IMAGE_FETCH_FAILED = "image_fetch_failed"
    IMAGE_REQUIRED = "image_required"
    UNSUPPORTED_FIELD = "unsupported_field"
    INVALID_FIELD = "invalid_field"  # of a whole request too
    EMPTY_QUESTION = "empty_question"
    BAD_TEXT = "bad_text"
    BAD_STEPS = "bad_steps"
    TOO_LONG = "too_long"
    NON_FINITE_SCORE = "non_finite_score"
    WORKER_LOST = "worker_lost"
    OUT_OF_MEMORY = "out_of_memory"
    DEADLINE = "deadline"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"
    # what is wrong with a whole request
    MALFORMED = "malformed"
    JSON_TOO_DEEP = "json_too_deep"
    UNKNOWN_FIELD = "unknown_field"
    TOO_MANY = "too_many"
    BODY_TOO_LARGE = "body_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    SLOW_BODY = "slow_body"
    MEDIA_TYPE = "media_type"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    VERSION_CHANGED = "version_changed"
    NOT_READY = "not_ready"
    CLIENT_LEFT = "client_left"  # counted, never sent
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    HOST_REFUSED = "host_refused"
    QUOTA_EXCEEDED = "quota_exceeded"
    VIEWPOINT_UNKNOWN = "viewpoint_unknown"
    POLICY_UNKNOWN = "policy_unknown"
    POLICY_REFUSED = "policy_refused"
    MODEL_REFUSED = "model_refused"
    CHANGE_UNDER_WAY = "change_under_way"
    ASLEEP = "asleep"
    AUDIT_OFF = "audit_off"
    AUDIT_FAILED = "audit_failed"


#: The codes that an item may have; the enum lists them first.
ITEM_CODES: Final = tuple(takewhile(lambda code: code is not Code.MALFORMED, Code))

#: Causes that may be gone on the next try. If every item of a request fails with the same one, so does the request.
RETRYABLE: Final = frozenset(
    {
        Code.WORKER_LOST,
        Code.OUT_OF_MEMORY,
        Code.DEADLINE,
        Code.OVERLOADED,
        Code.NOT_READY,
        Code.ASLEEP,
        Code.QUOTA_EXCEEDED,
        Code.AUDIT_FAILED,
    }
)


class MedRewardError(Exception):
    """Base of everything that this package raises on purpose and a caller is told.

    The log shows `for_log` in place of `detail` where it is given: what the operator must know and the caller must not.
    """

    def __init__(
        self, code: Code, detail: str, field: str = "", retry_after: float | None = None, for_log: str = ""
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.field = field
        self.retry_after = retry_after
        self.for_log = for_log or detail


class RequestError(MedRewardError):
    """The whole request is refused. `field` is a JSON pointer into it."""


class ItemError(MedRewardError):
    """One item is refused, its neighbours are not. `field` names a part of the item: image, question, response …"""


class ConfigurationError(Exception):
    """The process cannot start as it was told to; the message says why in one line."""
