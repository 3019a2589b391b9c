"""Addresses that doors are bound to, and host names that they answer to."""

import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import Final

from medreward.errors import Code, ConfigurationError, RequestError

HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?")


def address_of(host: str) -> str:
    """The one address that a setting means: what is checked is what is bound to."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.getaddrinfo(host or None, 0, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ConfigurationError(f"cannot listen on {host}: {reason}") from None
    return str(found[0][4][0])


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


class Hosts:
    """The Host headers that a door answers to: against pages that point a name of theirs at a private address."""

    def __init__(self, names: str, only_loopback: bool) -> None:
        self._any = names == "*" or (not names and not only_loopback)
        self._names = frozenset(name.strip().lower() for name in names.split(",")) if names else None

    def check(self, headers: Sequence[str]) -> None:
        written = HOST.fullmatch(headers[0]) if len(headers) == 1 else None
        host = (written[1] or written[2]).lower().rstrip(".") if written else ""
        if not host or not (self._any or self._answers_to(host)):
            raise RequestError(
                Code.HOST_REFUSED,
                "this server does not answer to this host name: an operator can allow it with --allowed-hosts",
            )

    def _answers_to(self, host: str) -> bool:
        if self._names is not None:
            return host in self._names
        return host == "localhost" or host.endswith(".localhost") or _is_address(host)


def _is_address(host: str) -> bool:
    """Nobody can point an address elsewhere, as they can a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
