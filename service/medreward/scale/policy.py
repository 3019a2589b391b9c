"""How many replicas Ray Serve shall run: by the cost that is admitted and not yet scored, not by requests.

A request may be one short answer or sixty-four images with a hundred answers each, so that its count says little.
"""

import math
from typing import Any, Final

COST: Final = "queued_cost"  # what each replica reports


class QueuedCost:
    """An autoscaling policy of Ray Serve; Ray itself applies its delays and bounds to what this returns."""

    def __init__(self, cost_per_replica: float = 200_000, shrink_below: float = 0.5) -> None:
        """`cost_per_replica` is the cost (tokens) that one replica should have before it. A replica is given up when
        those that stay would have less than the part `shrink_below` of that, so that a load near a border does not
        start and end replicas by turns. Raises ValueError for numbers that cannot be meant."""
        if cost_per_replica <= 0 or not 0 < shrink_below < 1:
            raise ValueError("cost_per_replica must be above 0, and shrink_below between 0 and 1")
        self._cost = cost_per_replica
        self._shrink_below = shrink_below

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Returns the number of replicas that is wanted, and no state. Where a running replica has reported nothing,
        the number only grows: what is not known is not taken for idle."""
        now = context.target_num_replicas
        reported = (context.aggregated_metrics or {}).get(COST, {})
        cost = sum(reported.values())
        wanted = math.ceil(cost / self._cost)
        if wanted > now:
            return wanted, {}
        silent = [replica for replica in context.running_replicas if replica not in reported]
        if silent or not context.running_replicas:
            return now, {}
        fewer = max(1, math.ceil(cost / (self._cost * self._shrink_below)))
        return min(now, fewer), {}
