"""Which stretches of a memory are free."""

from bisect import bisect


class Extents:
    """Given from the first that is long enough; neighbours that come back are one again."""

    def __init__(self, size: int) -> None:
        self._free = [(0, size)]  # start and end, in order

    @property
    def free(self) -> int:
        return sum(end - start for start, end in self._free)

    def take(self, size: int) -> int | None:
        """Where so much is free."""
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
