"""Turns what a request names as its image into a file, whose header is checked before anything is decoded."""

import asyncio
import hashlib
from dataclasses import dataclass, replace
from typing import Final

import pybase64

from medreward.encoding.image import ImageLimits, is_dicom, probe
from medreward.encoding.sizes import ImageHeader
from medreward.engine.images.fetch import Allowance, Fetcher
from medreward.engine.images.root import ImageRoot
from medreward.engine.images.store import ImageStore
from medreward.errors import Code, ItemError
from medreward.metrics import Metrics
from medreward.types import Base64Image, FileImage, FileSource, FrameImage, InlineImage, StoredImage, UrlImage

KNOWN_HEADERS: Final = 50_000
QUICK_BYTES: Final = 1024 * 1024  # hashed and probed in under a millisecond


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image whose header passed the checks."""

    digest: str
    data: bytes
    header: ImageHeader

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file, whichever of its frames this is."""
        return self.digest.partition("#")[0]

    def frame(self, wanted: FrameImage) -> "ImageFile":
        """Returns one frame of the file. Fails with an ItemError where the file has not got it."""
        number, there = wanted.number(self.header.frames), self.header.frames
        if number >= there or (wanted.of or 0) > there:
            asked = f"{wanted.of} are asked for" if wanted.of else f"frame {number}, counted from 0, is asked for"
            raise ItemError(Code.IMAGE_INVALID, f"the file has {there} frames, and {asked}", "image")
        return ImageFile(f"{self.digest}#{number}", self.data, replace(self.header, frame=number))

    def among_others(self) -> "ImageFile":
        """Returns the same image for a model that sees it otherwise where it reads others with it."""
        return ImageFile(f"{self.digest}#several", self.data, replace(self.header, is_alone=False))


class Images:
    """Opens the images that requests name, and stores those that clients upload."""

    def __init__(
        self,
        store: ImageStore,
        limits: ImageLimits,
        metrics: Metrics,
        fetcher: Fetcher | None = None,
        root: ImageRoot | None = None,
    ) -> None:
        self.store = store
        self._fetcher = fetcher
        self._root = root
        self._limits = limits
        self._metrics = metrics
        # of files that passed, because the same image comes with many answers
        self._headers: dict[tuple[str, str], ImageHeader] = {}

    async def put(self, tenant: str, data: bytes) -> tuple[bool, ImageFile]:
        """Stores the file; returns whether it is new, and the file. Fails with an ItemError for one that is refused."""
        file = await asyncio.to_thread(self._checked, data, tenant)
        if len(data) > self.store.max_bytes:
            raise ItemError(Code.IMAGE_TOO_LARGE, f"the image store holds {self.store.max_bytes} bytes", "image")
        return self.store.put(tenant, file.digest, data), file

    async def open(self, source: FileSource, tenant: str, allowance: Allowance) -> ImageFile:
        """Returns the file after a look at its header, in a thread where that could take long. Nothing is decoded.

        Fails with an ItemError for an image that is not there or is refused.
        """
        if isinstance(source, UrlImage):
            if self._fetcher is None:
                raise ItemError(
                    Code.IMAGE_URL_REFUSED, "this server fetches no images by URL: send the image itself", "image"
                )
            data = await self._fetcher.fetch(source.url, allowance)
        elif isinstance(source, FileImage):
            if self._root is None:
                raise ItemError(
                    Code.IMAGE_INVALID,
                    "the image is no sha256, data URL or https URL, and this server has no --image-root to read files "
                    "from",
                    "image",
                )
            data = await asyncio.to_thread(self._root.read, source.path, self._limits.bytes)
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

    def _read(self, source: InlineImage | Base64Image | StoredImage, tenant: str) -> bytes:
        """Returns the bytes of an image that came with the request or is stored."""
        match source:
            case InlineImage(data):
                return data
            case Base64Image(text):
                if len(text) > self._limits.bytes * 4 // 3 + 4:
                    too_large = f"the image has more than {self._limits.bytes} bytes"
                    raise ItemError(Code.IMAGE_TOO_LARGE, too_large, "image")
                try:
                    return pybase64.b64decode(text, validate=True)
                except ValueError:  # binascii.Error, or text beyond ASCII
                    not_base64 = "the image is not standard base64 with padding"
                    raise ItemError(Code.IMAGE_INVALID, not_base64, "image") from None
            case StoredImage(sha256):
                stored = self.store.get(tenant, sha256)
                self._metrics.count_cache("images", hits=int(stored is not None), misses=int(stored is None))
                if stored is None:
                    raise ItemError(Code.IMAGE_UNKNOWN, "no image is stored under this hash; send it again", "image")
                return stored
