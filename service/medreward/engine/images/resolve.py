"""Image files in front of the model: by content, checked before anything is decoded."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import pybase64

from medreward.encoding.image import ImageHeader, ImageLimits, is_dicom, probe
from medreward.engine.images.fetch import Allowance, Fetcher
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics
from medreward.types import Base64Image, ImageSource, InlineImage, StoredImage, UrlImage

KNOWN_HEADERS: Final = 50_000
QUICK_BYTES: Final = 1024 * 1024  # hashed and probed in under a millisecond


@dataclass(frozen=True, slots=True)
class Stored:
    data: bytes
    until: float


@dataclass(slots=True)
class Shelf:
    """One tenant's images, the one that expires next first."""

    images: OrderedDict[str, Stored] = field(default_factory=OrderedDict)
    bytes: int = 0


class ImageStore:
    """Image files by content, for a while, each visible only to the tenant that stored it.

    A full store drops the oldest of whoever holds most: with n tenants nobody loses the first 1/n of the room.
    """

    def __init__(self, max_bytes: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self._seconds = seconds
        self._clock = clock
        self._tenants: dict[str, Shelf] = {}
        self.bytes = 0

    def put(self, tenant: str, digest: str, data: bytes) -> bool:
        """Whether it is new here."""
        new = not self.delete(tenant, digest)
        shelf = self._tenants.setdefault(tenant, Shelf())
        shelf.images[digest] = Stored(data, self._clock() + self._seconds)
        shelf.bytes += len(data)
        self.bytes += len(data)
        while self.bytes > self.max_bytes:
            self._drop_oldest(max(self._tenants, key=lambda name: self._tenants[name].bytes))
        return new

    def get(self, tenant: str, digest: str) -> bytes | None:
        self._expire()
        shelf = self._tenants.get(tenant)
        stored = shelf.images.get(digest) if shelf else None
        return stored.data if stored else None

    def delete(self, tenant: str, digest: str) -> bool:
        self._expire()
        shelf = self._tenants.get(tenant)
        if not shelf or digest not in shelf.images:
            return False
        self._drop(tenant, digest)
        return True

    def _expire(self) -> None:
        now = self._clock()
        for tenant, shelf in list(self._tenants.items()):
            while shelf.images and next(iter(shelf.images.values())).until <= now:
                self._drop_oldest(tenant)

    def _drop_oldest(self, tenant: str) -> None:
        self._drop(tenant, next(iter(self._tenants[tenant].images)))

    def _drop(self, tenant: str, digest: str) -> None:
        shelf = self._tenants[tenant]
        size = len(shelf.images.pop(digest).data)
        shelf.bytes -= size
        self.bytes -= size
        if not shelf.images:
            del self._tenants[tenant]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image whose header passed the checks."""

    digest: str
    data: bytes
    header: ImageHeader


class Images:
    """From what a request names to a checked file."""

    def __init__(
        self, store: ImageStore, limits: ImageLimits, metrics: Metrics, fetcher: Fetcher | None = None
    ) -> None:
        self.store = store
        self._fetcher = fetcher
        self._limits = limits
        self._metrics = metrics
        #: Of files that passed: an image comes back with every answer.
        self._headers: dict[tuple[str, str], ImageHeader] = {}

    async def put(self, tenant: str, data: bytes) -> tuple[bool, ImageFile]:
        """Stores the file; whether it is new."""
        file = await asyncio.to_thread(self._checked, data, tenant)
        if len(data) > self.store.max_bytes:
            raise ItemError(Code.IMAGE_TOO_LARGE, f"the image store holds {self.store.max_bytes} bytes", "image")
        return self.store.put(tenant, file.digest, data), file

    async def open(self, source: ImageSource, tenant: str, allowance: Allowance) -> ImageFile:
        """Looks at the header, decodes nothing; away from the event loop where that could take long."""
        if isinstance(source, UrlImage):
            data = await self._fetched(source.url, allowance)
        else:
            data = self._read(source, tenant)
        if len(data) <= QUICK_BYTES and not is_dicom(data):
            return self._checked(data, tenant)
        return await asyncio.to_thread(self._checked, data, tenant)

    def close(self) -> None:
        if self._fetcher:
            self._fetcher.close()

    def _checked(self, data: bytes, tenant: str) -> ImageFile:
        digest = hashlib.sha256(data).hexdigest()
        header = self._headers.get((tenant, digest))
        if header is None:
            if len(self._headers) >= KNOWN_HEADERS:
                self._headers.clear()
            header = self._headers[tenant, digest] = probe(data, self._limits)
        return ImageFile(digest, data, header)

    async def _fetched(self, url: str, allowance: Allowance) -> bytes:
        if self._fetcher is None:
            raise ItemError(
                Code.IMAGE_URL_REFUSED, "this server fetches no images by URL: send the image itself", "image"
            )
        return await self._fetcher.fetch(url, allowance)

    def _read(self, source: InlineImage | Base64Image | StoredImage, tenant: str) -> bytes:
        match source:
            case InlineImage(data):
                return data
            case Base64Image(text):
                return self._from_base64(text)
            case StoredImage(sha256):
                stored = self.store.get(tenant, sha256)
                self._metrics.count_cache("images", hits=int(stored is not None), misses=int(stored is None))
                if stored is None:
                    raise ItemError(Code.IMAGE_UNKNOWN, "no image is stored under this hash; send it again", "image")
                return stored

    def _from_base64(self, text: str) -> bytes:
        if len(text) > self._limits.bytes * 4 // 3 + 4:
            raise ItemError(Code.IMAGE_TOO_LARGE, f"the image has more than {self._limits.bytes} bytes", "image")
        try:
            return pybase64.b64decode(text, validate=True)
        except ValueError:  # binascii.Error, or text beyond ASCII
            raise ItemError(Code.IMAGE_INVALID, "the image is not standard base64 with padding", "image") from None
