"""What a client raises. An item that could not be scored is no exception but a Score without numbers, unless strict."""

from typing import Any, Final

from medreward.errors import Code
from medreward.types import ModelRef

#: What the next call would meet as well. A worker that is lost or slow may be so because of this very response.
SERVER_AWAY: Final = frozenset({Code.OVERLOADED, Code.NOT_READY, "unreachable", "garbled"})


def described(model: ModelRef) -> str:
    """`medreward-mini 1.1.0 (sha256:…)`"""
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
    """The client was closed, or was made before this process was forked off."""


class VersionChanged(ClientError):
    """Another model answers than the one that is wanted: its numbers are on another scale.

    `wanted` is that one's fingerprint; `found` is the model that is there now, None where it could not be asked.
    """

    def __init__(self, message: str, wanted: str, found: ModelRef | None) -> None:
        super().__init__(f"{Code.VERSION_CHANGED}: {message}")
        self.wanted = wanted
        self.found = found


class NotScored(ClientError):
    """Strict mode: at least one response has no score. `code` is the first one's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Refused(ClientError):
    """The server, or the way to it, refused a call: its key, its route, not what is asked about."""

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
    """Nothing at the address answers, or what answers has no such route: a wrong URL, or a server that is away."""

    def __init__(self, address: str, reason: str, code: str = "unreachable") -> None:
        message = f"cannot reach {address}: {reason}. Check the URL, and that a MedReward server is running there"
        super().__init__(code, message, retryable=True)
