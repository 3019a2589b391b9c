"""Wilson's 95% interval, for every share that is reported with one."""

import math
from statistics import NormalDist
from typing import Final

Z: Final = NormalDist().inv_cdf(0.975)


def wilson(credit: float, n: float) -> tuple[float, float]:
    """Returns the bounds of the share `credit / n`. Halves are allowed: a tie counts half a case."""
    share, square = credit / n, Z * Z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return middle - half, middle + half
