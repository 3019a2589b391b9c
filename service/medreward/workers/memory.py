"""Model-sized images in memory that the front shares with its children."""

import mmap
import os
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

CHANNELS: Final = 3


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where the pixels of an image lie in the shared memory."""

    offset: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """The bytes that the pixels take."""
        return self.height * self.width * CHANNELS


class PixelMemory:
    """The shared memory, mapped into this process. Each process that has the descriptor maps it once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._bytes = np.frombuffer(mmap.mmap(fd, 0), np.uint8)

    def pixels(self, place: Place) -> NDArray[np.uint8]:
        """A view of the pixels at this place: height, width, RGB. Writing to it writes to the shared memory."""
        flat = self._bytes[place.offset : place.offset + place.size]
        return flat.reshape(place.height, place.width, CHANNELS)


def anonymous_memory(size: int) -> int:
    """A file descriptor of memory that children can map; it has no name and ends with its last user."""
    fd = os.memfd_create("medreward-pixels")
    os.ftruncate(fd, size)
    return fd
