"""The exceptions of a client. Unless it is strict, a response that could not be scored raises none: its Score has an
error in place of numbers.
"""

from typing import Any, Final

from medreward.clients.score import Screened
from medreward.errors import Code
from medreward.types import ModelRef

#: What the next call would meet as well. A worker that is lost or slow may be so because of this very response.
SERVER_AWAY: Final = frozenset({Code.OVERLOADED, Code.NOT_READY, "unreachable", "garbled"})


def describe(model: ModelRef) -> str:
    """Returns the model as messages name it: `medreward-mini 1.1.0 (sha256:…)`."""
    return f"{model.name} {model.version} ({model.fingerprint})"


def is_server_away(code: str) -> bool:
    """Returns whether the error says that no other response could be scored now either."""
    return code in SERVER_AWAY or code.startswith(("http_", "grpc_"))


class ClientError(Exception):
    """Base of all that a client raises on purpose. It can be pickled, for trainers raise it in processes of a pool."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (type(self), self.args), self.__dict__


def _made_again(kind: type[ClientError], args: tuple[Any, ...]) -> ClientError:
    """Returns an error as it was, without the arguments of its own that it was first made with."""
    return kind.__new__(kind, *args)


class Closed(ClientError):
    """The client was closed, or it was made before this process was forked off."""


class VersionChanged(ClientError):
    """Another model answers than the one that is wanted, and its numbers are on another scale.

    `wanted` is the fingerprint of the wanted one. `found` is the model that is there now, or None where it could not be
    asked.
    """

    def __init__(self, message: str, wanted: str, found: ModelRef | None) -> None:
        super().__init__(f"{Code.VERSION_CHANGED}: {message}")
        self.wanted = wanted
        self.found = found


class NotScored(ClientError):
    """At least one response has no score, in strict mode. `code` is that of the first one."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class NotAllowed(ClientError):
    """An answer may not be shown: its verdict is another than allow. `screened` holds the verdict and its reasons."""

    def __init__(self, screened: Screened) -> None:
        why = screened.error or ", ".join(reason.rule for reason in screened.reasons)
        decision = f" (decision {screened.decision_id})" if screened.decision_id else ""
        super().__init__(f"the answer is not allowed: {screened.verdict} by {why}{decision}")
        self.screened = screened


class Refused(ClientError):
    """The server, or something on the way to it, refused a whole call, for instance for its key."""

    def __init__(
        self, code: str, message: str, retryable: bool, retry_after: float | None = None, field: str = ""
    ) -> None:
        super().__init__(f"{code}: {message}{f' ({field})' if field else ''}")
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after
        self.field = field  # a pointer into the call, where the server names one


class Unreachable(Refused):
    """Nothing answers at the address, or what answers has no such route: the URL is wrong, or the server is away."""

    def __init__(self, address: str, reason: str, code: str = "unreachable") -> None:
        message = f"cannot reach {address}: {reason}. Check the URL, and that a MedReward server is running there"
        super().__init__(code, message, retryable=True)
