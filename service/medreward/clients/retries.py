"""Decides when to try again: with full jitter, never before the server said, and within a budget that bounds a storm of
retries.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call is tried for, and how many retries a second all calls of a client make together.

    `start_seconds` is how long to wait for a server that has never answered yet: by default not at all, because the
    likeliest reason is a wrong URL. Give it where the server is started together with its client.
    """

    seconds: float = 120.0
    retries_per_second: float = 20.0
    burst: float = 50.0
    start_seconds: float = 0.0


class RetryBudget:
    """A bucket of retries that fills with time. It refuses nothing: a call that finds it empty waits for its turn."""

    def __init__(self, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience = patience
        self.clock = clock
        self._retries = patience.burst
        self._at = clock()

    def take(self) -> float:
        """Takes a retry out of the bucket, and returns for how many seconds it must wait."""
        now = self.clock()
        self._retries = min(self.patience.burst, self._retries + (now - self._at) * self.patience.retries_per_second)
        self._at = now
        self._retries -= 1
        return max(0.0, -self._retries / self.patience.retries_per_second)


class Attempts:
    """The tries of one call."""

    def __init__(self, budget: RetryBudget, random: Callable[[], float] = random.random) -> None:
        self._budget = budget
        self._random = random
        self._began = budget.clock()
        self.failed = 0

    @property
    def seconds(self) -> float:
        """How many seconds ago the first try began."""
        return self._budget.clock() - self._began

    def pause(self, retry_after: float | None = None) -> float | None:
        """Notes a failed try. Returns the seconds to wait before the next one, never fewer than the server said, or
        None when it is time to give up.
        """
        jitter = self._random() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self.failed, 10))
        self.failed += 1
        wait = (retry_after or 0.0) + jitter + self._budget.take()
        return wait if self.seconds + wait <= self._budget.patience.seconds else None
