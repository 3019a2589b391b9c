"""Fetches images by URL: over https alone, from hosts that the settings name, at an address that was looked up once
and checked."""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import urljoin

import httpcore
import httpx

from medreward.encoding.pictures import refused
from medreward.errors import Code, ConfigurationError, ItemError
from medreward.settings import Settings
from medreward.types import Trace

FETCHES: Final = 8  # from one host at a time; more wait, within their own time
REDIRECTS: Final = 3
MOVED: Final = (301, 302, 303, 307, 308)
URL_CHARS: Final = 4096
HTTPS_PORT: Final = 443
URL: Final = re.compile(
    r"(?i:https)://([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?((?:[/?][A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]*)?)"
)

UNICAST: Final = IPv6Network("2000::/3")  # all that IANA has given out so far
NAT64: Final = IPv6Network("64:ff9b::/96")
PRIVATE: Final = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "127.0.0.0/8", "::1/128"))
)
METADATA: Final = {ip_address("168.63.129.16"), ip_address("fd00:ec2::254")}  # those outside the link-local networks

Resolve = Callable[[str, int], list[str]]


class UrlParts(NamedTuple):
    """The parts of a URL that may be fetched."""

    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them, without the port of https."""
        return self.host if self.port == HTTPS_PORT else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Host:
    """What the fetches from one host share, so that a host that hangs, or whose name server hangs, delays no other."""

    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(FETCHES))
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(FETCHES, "resolve"))


@dataclass(slots=True)
class Allowance:
    """How many bytes the server may still fetch for one request, and the trace that shows what it fetches."""

    left: int
    trace: Trace | None = None


def system_resolve(host: str, port: int) -> list[str]:
    """Returns the addresses of a host name as the system resolves it; raises OSError where it has none."""
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_allowed(address: str, private: bool) -> bool:
    """Returns whether images may be fetched from the address: a public one, and with `private` one of a private network
    or of this machine too. Link-local addresses and those of a cloud's metadata never are.
    """
    try:
        ip = ip_address(address)
    except ValueError:  # a scope, such as fe80::1%eth0
        return False
    if isinstance(ip, IPv6Address):  # it may stand for an IPv4 address, which is then what counts
        ip = IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped or ip.sixtofour or ip
    if ip in METADATA:
        return False
    if any(ip in network for network in PRIVATE):
        return private
    return ip.is_global and not ip.is_multicast and (ip.version == 4 or ip in UNICAST)


class Fetcher:
    """Fetches images for all items. An item waits for its own image only, and for no longer than `seconds`."""

    def __init__(
        self,
        hosts: Iterable[str],
        private: bool,
        max_bytes: int,
        seconds: float,
        tls: ssl.SSLContext,
        resolve: Resolve = system_resolve,
    ) -> None:
        self._hosts = {host.lower().removesuffix(f":{HTTPS_PORT}"): Host() for host in hosts}
        self._private = private
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._tls = tls
        self._resolve = resolve

    async def fetch(self, url: str, allowance: Allowance) -> bytes:
        """Returns the bytes behind the URL, whatever they are.

        Fails with an ItemError: the URL is not allowed, its host does not answer with a file in time, or the file is
        larger than an image, or than what is left of the allowance.
        """
        parts = self._parts(url)
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                for _ in range(REDIRECTS + 1):
                    async with self._hosts[parts.authority].slots:
                        answer = await self._get(parts, allowance)
                    if isinstance(answer, bytes):
                        return answer
                    try:
                        url = urljoin(f"https://{parts.authority}{parts.target}", answer)
                    except ValueError:  # brackets that hold no address
                        url = ""
                    parts = self._parts(url)
        except TimeoutError:
            raise _failed(f"the image did not arrive within {self._seconds:g} s") from None
        finally:
            if allowance.trace:
                allowance.trace.phase("fetch", started, time.monotonic())
        raise _failed(f"the image URL redirects more than {REDIRECTS} times")

    def close(self) -> None:
        """Ends the threads that look names up, without waiting for them."""
        for host in self._hosts.values():
            host.threads.shutdown(wait=False, cancel_futures=True)

    def _parts(self, url: str) -> UrlParts:
        """Returns the parts of a URL; refuses one that is malformed or leads to a host that the settings do not
        name.
        """
        match = URL.fullmatch(url) if len(url) <= URL_CHARS else None
        if not match:
            raise refused(
                Code.IMAGE_URL_REFUSED,
                "an image URL must have https, a host name and a path, and no user and no fragment",
            )
        host, port, target = match.groups()
        parts = UrlParts(host.lower(), int(port or HTTPS_PORT), target if target.startswith("/") else f"/{target}")
        if parts.authority not in self._hosts:
            raise refused(
                Code.IMAGE_URL_REFUSED,
                "this server fetches no images from this host: an operator can allow it with --image-url-hosts",
            )
        return parts

    async def _get(self, parts: UrlParts, allowance: Allowance) -> bytes | str:
        """Returns the bytes that the host answers with, or the location to which it redirects."""
        url = httpcore.URL(scheme="https", host=await self._address(parts), port=parts.port, target=parts.target)
        headers = [("Host", parts.authority), ("Accept-Encoding", "identity"), ("Connection", "close")]
        if allowance.trace:
            headers += allowance.trace.headers.items()
        name = {"sni_hostname": parts.host}  # what the certificate must be for
        try:
            async with (
                httpcore.AsyncHTTPConnection(url.origin, self._tls) as connection,
                connection.stream("GET", url, headers=headers, extensions=name) as response,
            ):
                fields = httpx.Headers(response.headers)
                if response.status in MOVED and "location" in fields:
                    return fields["location"]
                if response.status != 200 or fields.get("content-encoding", "identity") != "identity":
                    raise _failed("the image's host did not answer with a file")
                return await self._body(response, allowance)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
            raise _failed("the image's host cannot be reached or broke off") from None

    async def _body(self, response: httpcore.Response, allowance: Allowance) -> bytes:
        """Returns the whole body; fails once it has more bytes than an image or the request may have."""
        body = bytearray()
        async for chunk in response.aiter_stream():
            allowance.left -= len(chunk)
            body += chunk
            if len(body) > self._max_bytes:
                raise _failed(f"the image at the URL has more than {self._max_bytes} bytes")
            if allowance.left < 0:
                raise _failed("the images at this request's URLs have together more bytes than a body may have")
        return bytes(body)

    async def _address(self, parts: UrlParts) -> str:
        """Returns the address of the host, which is looked up once: the connection goes there and nowhere else.

        Refuses a host one of whose addresses is not allowed.
        """
        loop = asyncio.get_running_loop()
        try:
            addresses = await loop.run_in_executor(
                self._hosts[parts.authority].threads, self._resolve, parts.host, parts.port
            )
        except OSError:
            raise _failed("the image's host name cannot be resolved") from None
        if not all(is_allowed(address, self._private) for address in addresses):
            raise refused(
                Code.IMAGE_URL_REFUSED, "the image's host name leads to an address that this server does not fetch from"
            )
        return addresses[0]


def fetcher_for(settings: Settings) -> Fetcher | None:
    """Returns the fetcher that the settings ask for, or None where they name no host.

    Fails with a ConfigurationError where the file of certificates cannot be read.
    """
    if not settings.image_url_hosts:
        return None
    tls = httpx.create_ssl_context(trust_env=False)
    if settings.image_url_ca:
        try:
            tls.load_verify_locations(settings.image_url_ca)
        except OSError:  # ssl.SSLError too
            raise ConfigurationError(
                f"setting image_url_ca: {settings.image_url_ca} holds no PEM certificate"
            ) from None
    return Fetcher(
        settings.image_url_hosts,
        settings.image_url_private,
        settings.image_bytes,
        settings.image_url_seconds,
        tls,
    )


def _failed(detail: str) -> ItemError:
    return refused(Code.IMAGE_FETCH_FAILED, detail)
