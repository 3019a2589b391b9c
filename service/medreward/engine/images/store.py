"""Keeps the image files that clients upload once and then name by their SHA-256."""

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from medreward.types import Clock


@dataclass(frozen=True, slots=True)
class Stored:
    data: bytes
    until: float


@dataclass(slots=True)
class Shelf:
    """The images of one tenant; the one that expires next comes first."""

    images: OrderedDict[str, Stored] = field(default_factory=OrderedDict)
    bytes: int = 0


class ImageStore:
    """Keeps image files by their SHA-256 for a limited time; a tenant sees only the files that it stored itself.

    A full store drops the oldest file of the tenant that holds the most bytes. So with n tenants, none loses files as
    long as it holds less than 1/n of the store.
    """

    def __init__(self, max_bytes: int, seconds: float, clock: Clock = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self._seconds = seconds
        self._clock = clock
        self._tenants: dict[str, Shelf] = {}
        self.bytes = 0

    def put(self, tenant: str, digest: str, data: bytes) -> bool:
        """Keeps the file and returns whether this tenant had none of this content before."""
        new = not self.delete(tenant, digest)
        shelf = self._tenants.setdefault(tenant, Shelf())
        shelf.images[digest] = Stored(data, self._clock() + self._seconds)
        shelf.bytes += len(data)
        self.bytes += len(data)
        while self.bytes > self.max_bytes:
            self._drop_oldest(max(self._tenants, key=lambda name: self._tenants[name].bytes))
        return new

    def get(self, tenant: str, digest: str) -> bytes | None:
        """Returns the file, or None when this tenant stored none of this content or it has expired."""
        self._expire()
        shelf = self._tenants.get(tenant)
        stored = shelf.images.get(digest) if shelf else None
        return stored.data if stored else None

    def delete(self, tenant: str, digest: str) -> bool:
        """Removes the file and returns whether it was there."""
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
