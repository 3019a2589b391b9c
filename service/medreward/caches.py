"""A cache of arrays, bounded in bytes."""

from collections import OrderedDict
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

MIB: Final = 1024 * 1024
ENTRY_BYTES: Final = 450  # what an array of a few numbers takes with its key, measured

T = TypeVar("T", bound=np.generic)


class ArrayCache(Generic[T]):
    """Arrays by key; the least recently used go first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._arrays: OrderedDict[str, NDArray[T]] = OrderedDict()
        self.bytes = 0

    def get(self, key: str) -> NDArray[T] | None:
        array = self._arrays.get(key)
        if array is not None:
            self._arrays.move_to_end(key)
        return array

    def put(self, key: str, array: NDArray[T]) -> None:
        if key in self._arrays:
            return
        self._arrays[key] = array
        self.bytes += array.nbytes + ENTRY_BYTES
        while self.bytes > self._max_bytes:
            _, oldest = self._arrays.popitem(last=False)
            self.bytes -= oldest.nbytes + ENTRY_BYTES
