"""How a model reads an answer that repeats itself or is long: what was said before is left out, the rest in windows."""

from collections.abc import Sequence

from medreward.artifacts.manifest import Reading


def said_once(ids: Sequence[int], run: int) -> list[int]:
    """The tokens without those of any run of so many that has stood in the text before."""
    seen: set[tuple[int, ...]] = set()
    again: set[int] = set()
    for start in range(len(ids) - run + 1):
        words = tuple(ids[start : start + run])
        if words in seen:
            again.update(range(start, start + run))
        seen.add(words)
    return [token for place, token in enumerate(ids) if place not in again]


def windows(answer: Sequence[int], reading: Reading) -> list[list[int]]:
    """The parts of an answer that are read, each with the answer's closing token; one where it is not long."""
    *said, end = answer
    ids = said_once(said, reading.run)
    last = max(0, len(ids) - reading.window)
    starts = [*range(0, last, reading.step), last]
    return [[*ids[start : start + reading.window], end] for start in starts]
