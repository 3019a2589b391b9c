"""Which pairs logits put in the right order, by dimension."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medreward.lab.training.evaluate import won
from medreward.lab.vlm.examples import TIE, Example
from medreward.types import DIMENSIONS

Numbers = NDArray[np.float64]


def ahead(logits: Numbers, examples: Sequence[Example]) -> Numbers:
    """Returns by how much the better answer of each pair is ahead, NaN where none is: [pairs, dimensions].

    `logits` [answers, dimensions] are those of all answers, one example after the other; graded ones are left out.
    """
    first = np.cumsum([0, *(len(example.answers) for example in examples)])[:-1]
    pairs = np.array([len(example.answers) == 2 for example in examples], bool)
    wins = np.array([example.wins for example in examples], np.float64).reshape(-1, len(DIMENSIONS))[pairs]
    sign = np.where(np.isnan(wins) | (wins == TIE), np.nan, np.where(wins > TIE, 1.0, -1.0))
    leads: Numbers = sign * (logits[first[pairs]] - logits[first[pairs] + 1])
    return leads


def shares_right(leads: Numbers) -> dict[str, float]:
    """Returns the share of pairs in the right order, by dimension that any pair tells of. Equal logits are half."""
    told = {name: leads[~np.isnan(leads[:, place]), place] for place, name in enumerate(DIMENSIONS)}
    return {name: float(won(values).mean()) for name, values in told.items() if len(values)}
