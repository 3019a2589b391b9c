"""What is in a scored file: how many rows failed and why, and how its numbers are distributed."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from medreward.types import DIMENSIONS

SCORE_EDGES: Final = tuple(n / 20 for n in range(1, 20))
REWARD_EDGES: Final = tuple(float(n) for n in range(-12, 13))


class Distribution:
    """Numbers as they come, by Welford's method, and a histogram whose first and last bin are open."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = edges
        self._counts = [0] * (len(edges) + 1)
        self._n = 0
        self._mean = self._squares = 0.0
        self._least, self._most = math.inf, -math.inf

    def add(self, number: float) -> None:
        self._counts[bisect_right(self._edges, number)] += 1
        self._n += 1
        before = number - self._mean
        self._mean += before / self._n
        self._squares += before * (number - self._mean)
        self._least, self._most = min(self._least, number), max(self._most, number)

    def as_json(self) -> dict[str, Any] | None:
        """Returns the figures; None where there was no number."""
        if not self._n:
            return None
        spread = math.sqrt(self._squares / (self._n - 1)) if self._n > 1 else 0.0
        figures = {"mean": self._mean, "sd": spread, "min": self._least, "max": self._most}
        return {"count": self._n, **figures, "edges": list(self._edges), "counts": self._counts}


class Summary:
    """Counts the rows of an output of `score-file`."""

    def __init__(self) -> None:
        self.rows = self.failed = self._responses = 0
        self._errors: Counter[str] = Counter()
        self._flags: Counter[str] = Counter()
        self._model: Any = None
        self._reward = Distribution(REWARD_EDGES)
        self._scores = {dimension: Distribution(SCORE_EDGES) for dimension in DIMENSIONS}

    def add(self, row: Mapping[str, Any], failed: bool) -> None:
        self.rows += 1
        self.failed += failed
        self._model = row["model"]
        if row["error"]:
            self._errors[row["error"]["code"]] += 1
        for result in row["results"] or ():
            self._responses += 1
            self._flags.update(result["flags"])
            if result["status"] != "ok":
                self._errors[result["error"]["code"]] += 1
                continue
            if result["reward"] is not None:
                self._reward.add(result["reward"])
            for dimension, score in result["scores"].items():
                if score is not None:
                    self._scores[dimension].add(score)

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "failed": self.failed,
            "responses": self._responses,
            "model": self._model,
            "errors": dict(self._errors.most_common()),
            "flags": dict(self._flags.most_common()),
            "reward": self._reward.as_json(),
            "scores": {dimension: numbers.as_json() for dimension, numbers in self._scores.items()},
        }
