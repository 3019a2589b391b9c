"""Model-sized images in memory that every process maps."""

import mmap
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

CHANNELS: Final = 3


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where the pixels of an image lie."""

    offset: int
    height: int
    width: int


def mapped(fd: int) -> NDArray[np.uint8]:
    """All that lies behind the descriptor."""
    return np.frombuffer(mmap.mmap(fd, 0), np.uint8)


def at(place: Place, memory: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The pixels there: height, width, RGB."""
    size = place.height * place.width * CHANNELS
    return memory[place.offset : place.offset + size].reshape(place.height, place.width, CHANNELS)
