"""A cache that is bounded in bytes."""

from collections import OrderedDict
from typing import Final, Generic, Protocol, TypeVar

MIB: Final = 1024 * 1024
ENTRY_BYTES: Final = 450  # what an array of a few numbers takes with its key, measured


class Sized(Protocol):
    """What says how many bytes it takes, as an array does."""

    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


class ByteCache(Generic[V]):
    """Keeps values by key. When it is full, it drops the value that was used least recently."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[str, V] = OrderedDict()
        self.bytes = 0

    def get(self, key: str) -> V | None:
        """Returns the value of the key, which counts as used now, or None when it is not kept."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: str, value: V) -> None:
        """Keeps the value, unless the key has one already or the value is larger than the cache."""
        size = value.nbytes + ENTRY_BYTES
        if key in self._values or size > self._max_bytes:
            return
        self._values[key] = value
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, oldest = self._values.popitem(last=False)
            self.bytes -= oldest.nbytes + ENTRY_BYTES

    def clear(self) -> None:
        self._values.clear()
        self.bytes = 0
