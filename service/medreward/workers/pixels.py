"""Model-sized images in memory that every process maps."""

import mmap

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]


def mapped(fd: int, shape: Shape) -> NDArray[np.uint8]:
    """All slots behind the descriptor, each an image of this shape."""
    memory = mmap.mmap(fd, 0)
    return np.frombuffer(memory, np.uint8).reshape(-1, *shape)


def slot_bytes(shape: Shape) -> int:
    return shape[0] * shape[1] * shape[2]
