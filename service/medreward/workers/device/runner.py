"""Runs batches on a backend, in whichever process it is loaded, and finds out what to blame when one fails."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from medreward.backends.base import Backend, Counts, DeviceBroken, Group, HeadOutputs
from medreward.errors import Code, ConfigurationError, ItemError

log = logging.getLogger(__name__)

NO_MEMORY: Final = ("out of memory", "failed to allocate memory", "can't allocate memory", "status_alloc_failed")
#: After these a CUDA context is lost for its process.
BROKEN: Final = ("illegal memory access", "device-side assert", "unspecified launch failure", "misaligned address")
WHY: Final = {
    Code.OUT_OF_MEMORY: "the device has no memory for this item",
    Code.INTERNAL: "the model failed on this item",
}


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of each answer of each group, in order; when the device began, in seconds of time.monotonic, how many
    seconds it took, and what it counted."""

    outcomes: list[list[HeadOutputs | ItemError]]
    started: float
    seconds: float
    counts: Counts


class Runner:
    """Runs batches on a backend. When one fails, its groups run apart: a bad group costs no other its scores."""

    def __init__(self, backend: Backend) -> None:
        backend.warm_up()
        backend.take_counts()
        self._backend = backend

    def rest(self) -> None:
        """Gives the device back. Fails with whatever the backend raises."""
        self._backend.rest()

    def resume(self) -> None:
        """Takes the device again and warms it up. Fails with a ConfigurationError where its memory is taken."""
        with loading():
            self._backend.resume()
            self._backend.warm_up()
        self._backend.take_counts()

    def score(self, groups: Sequence[Group]) -> Done:
        started = time.monotonic()
        outcomes = self._outcomes(groups)
        return Done(outcomes, started, time.monotonic() - started, self._backend.take_counts())

    def _outcomes(self, groups: Sequence[Group]) -> list[list[HeadOutputs | ItemError]]:
        attempt = self._attempt(groups)
        parts = [[group] for group in groups] if len(groups) > 1 else []
        if attempt is Code.OUT_OF_MEMORY:
            self._backend.release()
            if not parts:  # the group in two parts; no part at all when it has a single answer
                [group], middle = groups, len(groups[0].answers) // 2
                halves = (group.answers[:middle], group.answers[middle:]) if middle else ()
                parts = [[replace(group, answers=half)] for half in halves]
            attempt = attempt if parts else self._attempt(groups)  # what was given back may be all that it lacked
        if not isinstance(attempt, Code):
            return attempt
        if not parts:
            return [[ItemError(attempt, WHY[attempt])] * len(groups[0].answers)]
        outcomes = [outcome for part in parts for outcome in self._outcomes(part)]
        return outcomes if len(groups) > 1 else [[*chain(*outcomes)]]

    def _attempt(self, groups: Sequence[Group]) -> list[list[HeadOutputs | ItemError]] | Code:
        """Returns the outcomes, or the code of the error. Fails with DeviceBroken alone.

        No other exception is passed on: its traceback would keep the tensors whose memory the next attempt needs.
        """
        try:
            logits = self._backend.score(groups)
            if [len(rows) for rows in logits] != [len(group.answers) for group in groups]:
                raise ValueError("the backend gave another number of rows than it was given answers")
            return [list(rows) for rows in logits]
        except DeviceBroken:
            raise
        except Exception as error:
            if _says(error, BROKEN):
                raise DeviceBroken from error
            if _lacks_memory(error):
                answers = sum(len(group.answers) for group in groups)
                # Without the traceback: a handler might keep it.
                log.warning("no memory for a batch", extra={"groups": len(groups), "answers": answers})
                return Code.OUT_OF_MEMORY
            log.error("batch failed on the device", exc_info=error)
            return Code.INTERNAL


@contextmanager
def loading() -> Iterator[None]:
    """Turns a lack of memory or a broken device while a model loads into a ConfigurationError."""
    try:
        yield
    except DeviceBroken as error:
        raise ConfigurationError(f"the device broke while the model was loaded: {error}") from error
    except Exception as error:
        if not _lacks_memory(error):
            raise
        raise ConfigurationError(
            "the device has no memory for the model with one triple about its largest image"
        ) from error


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or _says(error, NO_MEMORY)


def _says(error: Exception, words: Sequence[str]) -> bool:
    """Returns whether the message has one of these words: runtimes have no exception types for these errors."""
    message = str(error).lower()
    return any(word in message for word in words)
