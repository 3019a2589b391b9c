"""When to try again: full jitter, the server's word first, and a budget that a storm of retries cannot exceed."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call is tried for, and how many retries a second all calls of a client make together."""

    seconds: float = 120.0
    retries_per_second: float = 20.0
    burst: float = 50.0


class RetryBudget:
    """A bucket of retries that fills with time. Nothing is refused; who finds it empty waits its turn."""

    def __init__(self, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience = patience
        self.clock = clock
        self._retries = patience.burst
        self._at = clock()

    def take(self) -> float:
        """Takes a retry, and says how long to wait until it is there."""
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
        self._end = budget.clock() + budget.patience.seconds
        self.failed = 0

    def pause(self, retry_after: float | None = None) -> float | None:
        """After a failed try: seconds before the next one, never fewer than the server said. None: give up."""
        jitter = self._random() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self.failed, 10))
        self.failed += 1
        wait = (retry_after or 0.0) + jitter + self._budget.take()
        return wait if self._budget.clock() + wait <= self._end else None
