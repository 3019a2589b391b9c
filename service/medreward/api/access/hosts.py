"""Which addresses doors listen on, and which host names they answer to."""

import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import Final

from medreward.errors import Code, ConfigurationError, RequestError

HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?")


def address_of(host: str) -> str:
    """Returns the one address that a host setting means, so that the door listens on what was checked. A host
    without an address stops the start."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        addresses = socket.getaddrinfo(host or None, 0, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ConfigurationError(f"cannot listen on {host}: {reason}") from None
    return str(addresses[0][4][0])


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


class Hosts:
    """The host names that a door answers to. A page in a browser can point a name of its own at a private address; this
    keeps it out."""

    def __init__(self, names: str, only_loopback: bool) -> None:
        self._any = names == "*" or (not names and not only_loopback)
        self._names = frozenset(name.strip().lower() for name in names.split(",")) if names else None

    def check(self, headers: Sequence[str]) -> None:
        """Refuses a request whose Host headers are not exactly one with a name that this door answers to."""
        match = HOST.fullmatch(headers[0]) if len(headers) == 1 else None
        host = (match[1] or match[2]).lower().rstrip(".") if match else ""
        if not host or not (self._any or self._answers_to(host)):
            raise RequestError(
                Code.HOST_REFUSED,
                "this server does not answer to this host name: an operator can allow it with --allowed-hosts",
            )

    def _answers_to(self, host: str) -> bool:
        if self._names is not None:
            return host in self._names
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(host)  # nobody can point an address elsewhere, as they can a name
        except ValueError:
            return False
        return True
