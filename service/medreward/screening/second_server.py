"""A shadow's second model: another server, which is sent what this one was asked, and for which nobody waits."""

import asyncio
import logging
import ssl
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from medreward.errors import ConfigurationError
from medreward.metrics import Metrics
from medreward.screening.deciding import Decision
from medreward.settings import MIB
from medreward.types import Base64Image, ImageSource, InlineImage, Item, StoredImage, Verdict

if TYPE_CHECKING:
    from medreward.screening.screening import Screened
    from medreward.screening.shadow import Compare

log = logging.getLogger(__name__)

WAITING: Final = 32  # requests; more are dropped
HELD_BYTES: Final = 64 * MIB  # of images and texts that wait or are sent; more is dropped
AT_ONCE: Final = 2
SECONDS: Final = 30.0

#: Returns the bytes of an image that a tenant stored; None where it is gone.
Stored = Callable[[str, str], bytes | None]


class ResultShape(msgspec.Struct):
    verdict: Verdict
    margin: float | None = None


class PolicyShape(msgspec.Struct):
    name: str
    version: str
    digest: str


class ModelShape(msgspec.Struct):
    fingerprint: str


class ReplyShape(msgspec.Struct):
    """What is read of an answer of `/v1/screen`."""

    results: list[ResultShape]
    policy: PolicyShape
    model: ModelShape


class CannotSend(Exception):
    """An image that is not at hand as bytes: a URL, a file, or a stored one that is gone."""


class SecondServer:
    """Asks `/v1/screen` of another server, in its bulk lane. What is too much is dropped and counted."""

    def __init__(self, url: str, key_file: Path | None, policy: str | None, stored: Stored, metrics: Metrics) -> None:
        self.about = f"server {url}"
        self._policy = policy
        self._stored = stored
        self._dropped = metrics.shadow_dropped
        self._waiting: asyncio.Queue[tuple[Screened, Compare, int]] = asyncio.Queue(WAITING)
        self._held = 0
        headers = {"X-Lane": "bulk", "Content-Type": "application/json", "X-Deadline-Ms": f"{1000 * SECONDS:.0f}"}
        if key_file:
            headers["Authorization"] = f"Bearer {_read_key(key_file)}"
        self._client = httpx.AsyncClient(
            base_url=_checked(url),
            headers=headers,
            timeout=SECONDS,
            trust_env=False,  # to this address alone: no proxy
            verify=ssl.create_default_context(),
        )
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(AT_ONCE)]

    def take(self, screened: "Screened", compare: "Compare") -> None:
        """Lets the request wait for its turn, or drops it where too much waits."""
        size = sum(_size(item) for item in screened.request.asked.items)
        if self._waiting.full() or self._held + size > HELD_BYTES:
            self._dropped.labels("busy").inc()
            return
        self._held += size
        self._waiting.put_nowait((screened, compare, size))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _ask(self) -> None:
        while True:
            screened, compare, size = await self._waiting.get()
            try:
                async with asyncio.timeout(SECONDS):  # httpx's own is between two bytes
                    reply = await self._client.post("v1/screen", content=await self._body(screened))
                reply.raise_for_status()
                answer = msgspec.json.decode(reply.content, type=ReplyShape)
                decisions = [Decision(result.verdict, (), result.margin) for result in answer.results]
                by = {**msgspec.to_builtins(answer.policy), "fingerprint": answer.model.fingerprint}
                compare(screened, decisions, by)
            except CannotSend:
                self._dropped.labels("image").inc()
            except Exception as error:
                self._dropped.labels("failed").inc()
                log.info("the shadow's server gave no verdict", extra={"error": type(error).__name__})
            finally:
                self._held -= size
                del screened, compare

    async def _body(self, screened: "Screened") -> bytes:
        asked, departments = screened.request.asked, screened.request.departments or ()
        sources = [[self._bytes_of(image, asked.tenant) for image in item.images] for item in asked.items]
        return await asyncio.to_thread(_encoded, screened, sources, departments, self._policy)

    def _bytes_of(self, image: ImageSource, tenant: str) -> bytes | str:
        match image:
            case InlineImage(data):
                return data
            case Base64Image(text):
                return text
            case StoredImage(sha256) if (stored := self._stored(tenant, sha256)) is not None:
                return stored
            case _:
                raise CannotSend


def _encoded(
    screened: "Screened", sources: list[list[bytes | str]], departments: tuple[str, ...], policy: str | None
) -> bytes:
    """Returns the body of a request for the same items. It may take milliseconds, so that it runs in a thread."""
    asked = screened.request.asked
    items: list[dict[str, Any]] = []
    for place, (item, own) in enumerate(zip(asked.items, sources, strict=True)):
        images = [b64encode(source).decode() if isinstance(source, bytes) else source for source in own]
        shape: dict[str, Any] = {"images": images, "question": item.question, "responses": item.responses}
        if item.history:
            shape["history"] = [turn.as_json() for turn in item.history]
        items.append({**shape, "department": departments[place] if departments else ""})
    options = {"too_long": asked.options.too_long, "thinking": asked.options.thinking}
    return msgspec.json.encode({"items": items, "options": options, **({"policy": policy} if policy else {})})


def _size(item: Item) -> int:
    images = sum(len(image.data) for image in item.images if isinstance(image, InlineImage))
    images += sum(len(image.text) for image in item.images if isinstance(image, Base64Image))
    return images + len(item.question) + sum(map(len, item.responses)) + sum(len(turn.text) for turn in item.history)


def _checked(url: str) -> str:
    """Returns the address of a server, ending in a slash; fails with a ConfigurationError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ConfigurationError("setting shadow_url: write it as https://host:port")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        log.warning("the shadow's server is asked in clear text: images, questions and answers can be read on the way")
    return url.rstrip("/") + "/"


def _read_key(file: Path) -> str:
    try:
        key = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"setting shadow_key_file: {file} cannot be read as a key") from None
    if not key:
        raise ConfigurationError(f"setting shadow_key_file: {file} is empty")
    return key
