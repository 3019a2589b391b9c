"""Every code of ours has its place in both doors."""

import grpc
import pytest

from medreward.api.rest.status import HTTP_STATUS
from medreward.api.rpc.status import GRPC_STATUS
from medreward.errors import RETRYABLE, Code

CONTRACT = {400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503, 504}
HTTPS_OWN = {405, 431}  # for a route that has other methods, and for headers too large
TRY_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_status_in_both_doors(code: Code) -> None:
    assert HTTP_STATUS[code] in CONTRACT | HTTPS_OWN or code is Code.CLIENT_LEFT  # nobody is there to read it
    assert GRPC_STATUS[code] not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)


@pytest.mark.parametrize("code", Code)
def test_the_doors_agree_on_whose_fault_it_is(code: Code) -> None:
    ours = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    if HTTP_STATUS[code] >= 500:
        assert GRPC_STATUS[code] in ours | TRY_AGAIN
    elif code not in (Code.BODY_TOO_LARGE, Code.HEADERS_TOO_LARGE, Code.SLOW_BODY):
        assert GRPC_STATUS[code] not in ours | TRY_AGAIN


@pytest.mark.parametrize("code", sorted(RETRYABLE))
def test_what_may_pass_later_says_so(code: Code) -> None:
    assert HTTP_STATUS[code] in (503, 504)
    assert GRPC_STATUS[code] in TRY_AGAIN
