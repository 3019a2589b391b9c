"""Where decoded images lie in the shared memory, and which of them must make room for new ones."""

import os
from bisect import bisect
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from medreward.encoding.sizes import Cut, ImageSpec
from medreward.errors import Code, ItemError
from medreward.workers.memory import CHANNELS, PixelMemory, Place, anonymous_memory

FEWEST_SLOTS: Final = 64  # pictures of the largest size that the memory can hold at the least
TOO_MANY_IMAGES: Final = "too many images at once; try again later"


class Extents:
    """The free stretches of a memory. Stretches that are given back are joined with their free neighbours."""

    def __init__(self, size: int) -> None:
        self._free = [(0, size)]  # start and end, in order

    @property
    def free(self) -> int:
        return sum(end - start for start, end in self._free)

    def take(self, size: int) -> int | None:
        """Takes the first stretch that is long enough and returns its start, or None when there is none."""
        for place, (start, end) in enumerate(self._free):
            if end - start >= size:
                self._free[place : place + 1] = [(start + size, end)] if end - start > size else []
                return start
        return None

    def give(self, start: int, size: int) -> None:
        place = bisect(self._free, (start, start + size))
        self._free.insert(place, (start, start + size))
        for left in (place, place - 1):
            if 0 <= left < len(self._free) - 1 and self._free[left][1] == self._free[left + 1][0]:
                self._free[left : left + 2] = [(self._free[left][0], self._free[left + 1][1])]


@dataclass(slots=True, eq=False)
class Picture:
    """A decoded image of a tenant. Its place is given to another one only when nobody holds it."""

    digest: str
    tenant: str
    place: Place
    holders: int = 0
    cut: Cut | None = None


class Slots:
    """The shared memory that pictures lie in. A new picture displaces the least recently used that nobody holds."""

    def __init__(self, pixels: int, max_bytes: int) -> None:
        """`pixels` is how many pixels the largest picture has."""
        self.size = max(FEWEST_SLOTS * pixels * CHANNELS, max_bytes)
        self.memory = PixelMemory(anonymous_memory(self.size))
        self._free = Extents(self.size)
        self._pictures: OrderedDict[tuple[str, str], Picture] = OrderedDict()

    @property
    def bytes(self) -> int:
        """The bytes that pictures take, whether somebody holds them or they are only kept."""
        return self.size - self._free.free

    def get(self, digest: str, tenant: str = "") -> Picture | None:
        """Returns the picture, or None if it was not decoded for this tenant or is no longer kept."""
        picture = self._pictures.get((tenant, digest))
        if picture:
            self._pictures.move_to_end((tenant, digest))
        return picture

    def new(self, digest: str, spec: ImageSpec, tenant: str = "") -> Picture:
        """Returns a picture whose pixels are not there yet; `keep` lets `get` find it, `give_up` gives its memory back.

        Fails as overloaded when all the memory is taken by pictures that are held.
        """
        while (offset := self._free.take(spec.pixels * CHANNELS)) is None:
            oldest = next((kept for kept in self._pictures.values() if not kept.holders), None)
            if oldest is None:
                raise ItemError(Code.OVERLOADED, TOO_MANY_IMAGES, retry_after=1)
            del self._pictures[oldest.tenant, oldest.digest]
            self.give_up(oldest)
        return Picture(digest, tenant, Place(offset, spec.height, spec.width), cut=spec.cut)

    def keep(self, picture: Picture) -> None:
        self._pictures[picture.tenant, picture.digest] = picture

    def give_up(self, picture: Picture) -> None:
        self._free.give(picture.place.offset, picture.place.size)

    def close(self) -> None:
        os.close(self.memory.fd)
