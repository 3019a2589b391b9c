"""What Kubernetes makes of the queued cost: the rule of its HorizontalPodAutoscaler, with the chart's settings."""

import math
from dataclasses import dataclass, field
from typing import Final

SYNC_S: Final = 15.0  # between two looks of the autoscaler
TOLERANCE: Final = 0.1  # a metric this near to the target changes nothing
MOST_UP: Final = (2.0, 4)  # times the pods, or this many more, in one look
FAILURES: Final = 3  # looks without an answer, after which KEDA falls back


@dataclass(slots=True)
class Autoscaler:
    """`queue_cost`, `down_seconds` and `fallback` are the chart's queueCost, scaleDownSeconds and fallbackReplicas."""

    queue_cost: float = 400_000
    least: int = 1
    most: int = 4
    down_seconds: float = 600
    fallback: int = 2
    _failures: int = 0
    _wanted: list[tuple[float, int]] = field(default_factory=list)

    def look(self, now: float, pods: int, queued: float | None) -> int:
        """Returns how many pods there should be. `queued` is the cost in all queues, None where nobody can tell."""
        wanted = min(self.most, max(self.least, self._wish(pods, queued)))
        self._wanted = [(at, count) for at, count in self._wanted if at > now - self.down_seconds] + [(now, wanted)]
        if wanted > pods:
            return min(wanted, max(math.floor(MOST_UP[0] * pods), pods + MOST_UP[1]))
        return min(pods, max(count for _, count in self._wanted))  # the most that was wanted in the whole window

    def _wish(self, pods: int, queued: float | None) -> int:
        if queued is None:
            self._failures += 1
            return max(pods, self.fallback) if self._failures >= FAILURES else pods
        self._failures = 0
        if abs(queued / (self.queue_cost * pods) - 1) <= TOLERANCE:
            return pods
        return math.ceil(queued / self.queue_cost)
