"""What a client raises. An item that could not be scored is no exception but a Score without numbers, unless strict."""


class ClientError(Exception):
    """Base of all that a client raises on purpose."""


class Closed(ClientError):
    """The client was closed, or was made before this process was forked off."""


class VersionChanged(ClientError):
    """The server has another model than the one this client is pinned to: its numbers are on another scale."""


class NotScored(ClientError):
    """Strict mode: at least one response has no score. `code` is the first one's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Refused(ClientError):
    """The server, or the way to it, refused a call: its key, its route, not what is asked about."""

    def __init__(self, code: str, message: str, retryable: bool, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after
