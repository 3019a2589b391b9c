"""Images in front of the model: stored by content, decoded once."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import pybase64

from medreward.backends.base import ModelImage
from medreward.caches import ArrayCache
from medreward.encoding.image import ImageHeader, ImageLimits, ImageSpec, decode, is_dicom, probe
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics
from medreward.types import Base64Image, ImageSource, InlineImage, StoredImage

QUICK_BYTES: Final = 1024 * 1024  # hashed and probed in under a millisecond
NO_PIXELS: Final = np.empty((0, 0, 3), np.uint8)  # of an image that is not decoded yet


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Stored:
    data: bytes
    until: float


class ImageStore:
    """Image files by content, for a while, each visible only to the tenant that stored it."""

    def __init__(self, max_bytes: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._clock = clock
        self._images: OrderedDict[tuple[str, str], Stored] = OrderedDict()  # the one that expires next comes first
        self.bytes = 0

    def put(self, tenant: str, data: bytes) -> tuple[str, bool]:
        """The image's digest, and whether it is new here."""
        digest = digest_of(data)
        new = not self.delete(tenant, digest)
        self._images[tenant, digest] = Stored(data, self._clock() + self._seconds)
        self.bytes += len(data)
        while self.bytes > self._max_bytes:
            self._drop_oldest()
        return digest, new

    def get(self, tenant: str, digest: str) -> bytes | None:
        self._expire()
        stored = self._images.get((tenant, digest))
        return stored.data if stored else None

    def delete(self, tenant: str, digest: str) -> bool:
        self._expire()
        stored = self._images.pop((tenant, digest), None)
        if stored:
            self.bytes -= len(stored.data)
        return stored is not None

    def _expire(self) -> None:
        now = self._clock()
        while self._images and next(iter(self._images.values())).until <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, stored = self._images.popitem(last=False)
        self.bytes -= len(stored.data)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that passed its header's checks; `header` is None where its pixels are known already."""

    digest: str
    data: bytes
    header: ImageHeader | None


class Images:
    def __init__(
        self, store: ImageStore, limits: ImageLimits, cache_bytes: int, threads: int, metrics: Metrics
    ) -> None:
        self.store = store
        self._limits = limits
        self._cache: ArrayCache[np.uint8] = ArrayCache(cache_bytes)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._requests = metrics.cache_requests.labels("pixels")
        self._hits = metrics.cache_hits.labels("pixels")

    async def put(self, tenant: str, data: bytes) -> tuple[str, bool, ImageHeader]:
        header = await asyncio.get_running_loop().run_in_executor(self._threads, probe, data, self._limits)
        digest, new = self.store.put(tenant, data)
        return digest, new, header

    async def open(self, source: ImageSource, tenant: str) -> ImageFile:
        """Looks at the header, decodes nothing; away from the event loop where that could take long."""
        data = self._read(source, tenant)
        if len(data) <= QUICK_BYTES and not is_dicom(data):
            return self._open(data)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._open, data)

    def _open(self, data: bytes) -> ImageFile:
        digest = digest_of(data)
        known = self._cache.get(digest) is not None
        return ImageFile(digest, data, None if known else probe(data, self._limits))

    async def decode(self, file: ImageFile, spec: ImageSpec) -> ModelImage:
        self._requests.inc()
        pixels = self._cache.get(file.digest)
        if pixels is None:
            header = file.header or probe(file.data, self._limits)
            loop = asyncio.get_running_loop()
            pixels = await loop.run_in_executor(self._threads, decode, file.data, header, spec)
            self._cache.put(file.digest, pixels)
        else:
            self._hits.inc()
        return ModelImage(file.digest, pixels)

    def state(self) -> dict[str, int]:
        return {"stored_bytes": self.store.bytes, "pixel_cache_bytes": self._cache.bytes}

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, source: ImageSource, tenant: str) -> bytes:
        match source:
            case InlineImage(data):
                return data
            case Base64Image(text):
                return self._from_base64(text)
            case StoredImage(sha256):
                stored = self.store.get(tenant, sha256)
                if stored is None:
                    raise ItemError(Code.IMAGE_UNKNOWN, "no image is stored under this hash; send it again", "image")
                return stored
        raise ItemError(Code.IMAGE_URL_REFUSED, "this server fetches no image URLs", "image")

    def _from_base64(self, text: str) -> bytes:
        if len(text) > self._limits.bytes * 4 // 3 + 4:
            raise ItemError(Code.IMAGE_TOO_LARGE, f"the image has more than {self._limits.bytes} bytes", "image")
        try:
            return pybase64.b64decode(text, validate=True)
        except ValueError:  # binascii.Error, or text beyond ASCII
            raise ItemError(Code.IMAGE_INVALID, "the image is not standard base64 with padding", "image") from None
