"""What a run's answers show and what they cannot: functions over arrays, one entry a labelled case.

A side is 1 for A, -1 for B, 0 for a tie and NaN for no answer; a credit is 1, a half for a tie, 0 for wrong or none.
Groups say which cases share an image: those are not independent.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Groups: TypeAlias = npt.NDArray[np.int64]
Interval: TypeAlias = tuple[float, float]
