"""A test that may be looked at after every number: do the numbers still come from where the first ones came from?

A score is ranked among all before it. While nothing changes, its rank is a random number between 0 and 1, whatever the
scores look like. A bet is a game that is fair then: it multiplies its stake by a factor that is 1 on average. So the
stakes of all bets together reach L times what they began with in at most 1/L of all runs, however long a run is
(Ville's inequality). After a change the ranks are no longer even, and the bet that fits the change grows quickly.
docs/drift.md has it in plain words, with what was measured.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from statistics import NormalDist
from typing import Final

#: Bets on a shift of the ranks, as normal scores in standard deviations, and on a spread so many times as wide.
SHIFTS: Final = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)
SPREADS: Final = (0.6, 1.6)
#: Bets on an event: how many times as high its odds have become.
ODDS: Final = (0.2, 0.5, 2.0, 5.0)

#: Numbers in which a third of the stakes is put in. Those put in late bet on a late change.
EARLY: Final = 100
BINS_TO_A_UNIT: Final = 12
FARTHEST: Final = 12  # units on either side of 0; what lies beyond counts with the last bin
HIGHEST: Final = 1e30
NORMAL: Final = NormalDist()


class Stakes:
    """The stakes of some bets, put in little by little, because nobody knows when a change comes."""

    def __init__(self, bets: int) -> None:
        self._of_bets = [0.0] * bets
        self._steps = 0
        self._waiting = 1.0
        self.worth = 1.0  # of all bets on average, with what waits: it began with 1

    @property
    def ahead(self) -> int:
        """The place of the bet that is worth most."""
        return max(range(len(self._of_bets)), key=self._of_bets.__getitem__)

    def multiply(self, factors: Sequence[float]) -> None:
        """Puts a little in, and multiplies the stake of each bet by its factor."""
        self._steps += 1
        waiting = 1 / math.log2(2 + self._steps / EARLY)  # it falls so slowly that a late change is found too
        new, self._waiting = self._waiting - waiting, waiting
        self._of_bets = [min(HIGHEST, (stake + new) * f) for stake, f in zip(self._of_bets, factors, strict=True)]
        self.worth = sum(self._of_bets) / len(self._of_bets) + waiting


class Watch(ABC):
    """Learns from the first `window` numbers, then tests each one that comes, and learns from it too."""

    changes: tuple[str, ...]  # what each bet says has happened

    def __init__(self, window: int, limit: float) -> None:
        self.window = window
        self._limit = limit
        self._stakes = Stakes(len(self.changes))
        self.learnt = 0
        self.tested = 0
        self.alarm_at: int | None = None  # how many were tested at the first alarm

    @property
    def statistic(self) -> float:
        """How strong the evidence of a change is now, from 0 (none) over 1 (an alarm) on."""
        return max(0.0, math.log(self._stakes.worth) / math.log(self._limit))

    @property
    def change(self) -> str:
        """What the evidence says has happened, in a word."""
        return self.changes[self._stakes.ahead]

    def see(self, value: float) -> bool:
        """Takes the next number; returns whether it is the one that raises the alarm."""
        if self.learnt < self.window:
            self.learnt += 1
            self._learn(value)
            return False
        self._stakes.multiply(self._factors(value))
        self._learn(value)
        self.tested += 1
        if self.alarm_at is None and self._stakes.worth >= self._limit:
            self.alarm_at = self.tested
            return True
        return False

    @abstractmethod
    def _factors(self, value: float) -> list[float]:
        """Returns the factor of each bet. While nothing changes, each is 1 on average, whatever came before."""

    @abstractmethod
    def _learn(self, value: float) -> None: ...


class ScoreWatch(Watch):
    """Watches a score between 0 and 1, on the scale of its log odds, by its rank among all before it."""

    changes = (*("lower",) * 3, *("higher",) * 3, "narrower", "wider")

    def __init__(self, window: int, limit: float, random: Random) -> None:
        super().__init__(window, limit)
        self._random = random
        self._counts = [0] * (2 * FARTHEST * BINS_TO_A_UNIT)

    def _factors(self, value: float) -> list[float]:
        z = NORMAL.inv_cdf(min(max(self._rank(value), 1e-12), 1 - 1e-12))
        shifted = [math.exp(shift * (z - shift / 2)) for shift in SHIFTS]
        return shifted + [math.exp(z * z * (1 - wide**-2) / 2) / wide for wide in SPREADS]

    def _rank(self, value: float) -> float:
        """Returns the share of earlier scores below this one. Among equals its place is drawn, so that the rank is
        exactly even while nothing changes."""
        place = self._bin(value)
        below, equal = sum(self._counts[:place]), self._counts[place]
        return (below + self._random.random() * (equal + 1)) / (self.learnt + self.tested + 1)

    def _learn(self, value: float) -> None:
        self._counts[self._bin(value)] += 1

    def _bin(self, value: float) -> int:
        if not 0 < value < 1:
            return len(self._counts) - 1 if value > 0 else 0
        place = int((math.log(value / (1 - value)) + FARTHEST) * BINS_TO_A_UNIT)
        return min(max(place, 0), len(self._counts) - 1)


class EventWatch(Watch):
    """Watches how often something happens: a number above 0 says that it did. Its chance is taken to be its share among
    all before it, so that a bet is fair on average over all chances that an event may have (Jeffreys' prior)."""

    changes = (*("rarer",) * 2, *("more often",) * 2)

    def __init__(self, window: int, limit: float) -> None:
        super().__init__(window, limit)
        self._happened = 0

    def _factors(self, value: float) -> list[float]:
        share = (self._happened + 0.5) / (self.learnt + self.tested + 1)
        return [(odds if value > 0 else 1) / (1 + share * (odds - 1)) for odds in ODDS]

    def _learn(self, value: float) -> None:
        self._happened += value > 0
