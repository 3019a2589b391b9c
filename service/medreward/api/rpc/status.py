"""Errors as gRPC answers: one table from code to status, and the end of a call with it."""

from typing import Any, Final, NoReturn

import grpc

from medreward.api.observing import Entry
from medreward.errors import Code, MedRewardError

Context = grpc.aio.ServicerContext[Any, Any]

GRPC_STATUS: Final[dict[Code, grpc.StatusCode]] = {
    Code.IMAGE_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_TOO_SMALL: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_KIND: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_ANIMATED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Code.IMAGE_URL_REFUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_FETCH_FAILED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_REQUIRED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.UNSUPPORTED_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Code.EMPTY_QUESTION: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BAD_TEXT: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BAD_STEPS: grpc.StatusCode.INVALID_ARGUMENT,
    Code.TOO_LONG: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NON_FINITE_SCORE: grpc.StatusCode.INTERNAL,
    Code.WORKER_LOST: grpc.StatusCode.UNAVAILABLE,
    Code.OUT_OF_MEMORY: grpc.StatusCode.UNAVAILABLE,
    Code.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.INTERNAL: grpc.StatusCode.INTERNAL,
    Code.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.JSON_TOO_DEEP: grpc.StatusCode.INVALID_ARGUMENT,
    Code.INVALID_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Code.UNKNOWN_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Code.TOO_MANY: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BODY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.HEADERS_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.SLOW_BODY: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.MEDIA_TYPE: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.METHOD_NOT_ALLOWED: grpc.StatusCode.UNIMPLEMENTED,
    Code.VERSION_CHANGED: grpc.StatusCode.FAILED_PRECONDITION,
    Code.NOT_READY: grpc.StatusCode.UNAVAILABLE,
    Code.CLIENT_LEFT: grpc.StatusCode.CANCELLED,
    Code.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Code.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Code.HOST_REFUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.VIEWPOINT_UNKNOWN: grpc.StatusCode.INVALID_ARGUMENT,
    Code.POLICY_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Code.POLICY_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Code.MODEL_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Code.CHANGE_UNDER_WAY: grpc.StatusCode.FAILED_PRECONDITION,
    Code.ASLEEP: grpc.StatusCode.UNAVAILABLE,
    Code.AUDIT_OFF: grpc.StatusCode.FAILED_PRECONDITION,
    Code.AUDIT_FAILED: grpc.StatusCode.UNAVAILABLE,
}


async def abort(context: Context, entry: Entry, error: MedRewardError) -> NoReturn:
    """Ends the call with this error's status and metadata, and notes the error in the call's entry. gRPC ends a
    handler by an exception, so this never returns."""
    entry.refusal = error
    metadata = {"x-error-code": str(error.code), **entry.id_headers()}
    if entry.trace_id:
        metadata["x-trace-id"] = entry.trace_id
    if error.field:
        metadata["x-error-field"] = error.field
    if error.retry_after is not None:
        metadata["grpc-retry-pushback-ms"] = str(int(error.retry_after * 1000))
    await context.abort(GRPC_STATUS[error.code], error.detail, tuple(metadata.items()))
