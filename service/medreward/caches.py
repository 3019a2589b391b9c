"""A cache of arrays, bounded in bytes."""

from collections import OrderedDict
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


class ArrayCache(Generic[T]):
    """Arrays by digest; the least recently used go first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._arrays: OrderedDict[str, NDArray[T]] = OrderedDict()
        self.bytes = 0

    def get(self, digest: str) -> NDArray[T] | None:
        array = self._arrays.get(digest)
        if array is not None:
            self._arrays.move_to_end(digest)
        return array

    def put(self, digest: str, array: NDArray[T]) -> None:
        if digest in self._arrays:
            return
        self._arrays[digest] = array
        self.bytes += array.nbytes
        while self.bytes > self._max_bytes:
            _, oldest = self._arrays.popitem(last=False)
            self.bytes -= oldest.nbytes
