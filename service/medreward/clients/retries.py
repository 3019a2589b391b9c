"""When to try again: full jitter, the server's word first, and a budget that a storm of retries cannot exceed."""

import random
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

    def __init__(self, patience: Patience, clock: Callable[[], float]) -> None:
        self._rate = patience.retries_per_second
        self._burst = patience.burst
        self._clock = clock
        self._tokens = patience.burst
        self._at = clock()

    def take(self) -> float:
        """Takes a retry, and says how long to wait until it is there."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)


def pause(attempt: int, retry_after: float | None, random_: Callable[[], float] = random.random) -> float:
    """Seconds before try number `attempt` + 1; never before the server said."""
    jittered = random_() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempt, 10))
    return (retry_after or 0.0) + jittered
