"""The figures of a report, from one run or two: what is shown, not how."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from medreward.bench.figures import shortcuts
from medreward.bench.finished import FinishedRun, Measured
from medreward.bench.statistics.accuracy import grouped_wilson
from medreward.bench.statistics.calibration import Calibration, calibration
from medreward.bench.statistics.paired import Difference, adjusted, difference, mcnemar, smallest_detectable
from medreward.types import DIMENSIONS

#: Percent of a heatmap's colour, over which text can still be read.
STRONGEST: Final = 60


@dataclass(frozen=True, slots=True)
class Share:
    """An accuracy with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Against:
    """The baseline on the same cases. `p` is corrected for all that stand in one table."""

    share: Share
    difference: Difference
    p: float
    smallest: float | None

    @property
    def is_significant(self) -> bool:
        return self.p < 0.05


@dataclass(frozen=True, slots=True)
class Shortcut:
    """The better shortcut on these cases, and by how much the run is ahead of it."""

    name: str
    accuracy: float
    lead: Difference

    @property
    def beaten(self) -> bool:
        return self.lead.low > 0


@dataclass(frozen=True, slots=True)
class Row:
    """One dimension, or one organ on one dimension. No share: no labelled case, or the model has no such dimension."""

    name: str
    n: int
    share: Share | None
    ties: int
    unanswered: int
    by_length: float | None
    by_position: float | None
    shortcut: Shortcut | None
    against: Against | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a heatmap; `share` is None where no case has a label."""

    n: int
    share: Share | None

    @property
    def tone(self) -> str:
        return "below" if self.share and self.share.value < 0.5 else "above"

    @property
    def heat(self) -> int:
        """Returns how strong the cell's colour is, in percent, so that text on it stays readable.

        It is as strong as the whole interval is away from a coin. So a figure of few cases fades, and one that may well
        be a coin's has no colour.
        """
        if not self.share:
            return 0
        nearest = max(self.share.low - 0.5, 0.5 - self.share.high, 0.0)
        return round(min(STRONGEST, 150 * nearest))


@dataclass(frozen=True, slots=True)
class HeatRow:
    name: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Facts:
    """`organs` are on `overall`. `calibrations` are by dimension; a judge has none."""

    dimensions: Sequence[Row]
    organs: Sequence[Row]
    heat: Sequence[HeatRow]
    departments: Sequence[HeatRow]
    calibrations: Mapping[str, Calibration]


def facts(run: FinishedRun, baseline: FinishedRun | None) -> Facts:
    """Both runs are on the same cases."""
    measured = {name: run.measured(name) for name in DIMENSIONS}
    both = {*DIMENSIONS} - run.missing - (baseline.missing if baseline else run.missing)
    other = {name: baseline.measured(name) if baseline and name in both else None for name in DIMENSIONS}
    calibrations = {name: calibration(one.labels, one.margins) for name, one in measured.items()}
    organs = _names(case.organ for case in run.cases)
    overall, others = measured["overall"], other["overall"]
    return Facts(
        dimensions=_rows([(name, one, other[name]) for name, one in measured.items()]),
        organs=_rows(
            [
                (organ, overall.inside(overall.organs == organ), others and others.inside(overall.organs == organ))
                for organ in organs
            ]
        ),
        heat=[_heat(organ, [one.inside(one.organs == organ) for one in measured.values()]) for organ in organs],
        departments=[
            _heat(department, [one.inside(one.departments == department) for one in measured.values()])
            for department in _names(case.department for case in run.cases)
        ],
        calibrations={name: found for name, found in calibrations.items() if found},
    )


def _names(names: Iterable[str | None]) -> list[str]:
    return sorted({name for name in names if name})


def _heat(name: str, parts: Iterable[Measured]) -> HeatRow:
    return HeatRow(name, [_cell(part) for part in parts])


def _rows(pairs: Sequence[tuple[str, Measured, Measured | None]]) -> list[Row]:
    tests = [mcnemar(mine.credits, other.credits).p for _, mine, other in pairs if other and len(mine.labels)]
    corrected = iter(adjusted(tests, "holm"))
    return [_row(name, mine, other, corrected) for name, mine, other in pairs]


def _row(name: str, mine: Measured, other: Measured | None, corrected: Iterator[float]) -> Row:
    n = len(mine.labels)
    if not n:
        return Row(name, 0, None, 0, 0, None, None, None, None)
    found = shortcuts(mine)
    return Row(
        name=name,
        n=n,
        share=_share(mine),
        ties=int((mine.choices == 0).sum()),
        unanswered=int(np.isnan(mine.choices).sum()),
        by_length=float(found["length"].mean()),
        by_position=float(found["position"].mean()),
        shortcut=_shortcut(mine),
        against=_against(mine, other, next(corrected)) if other else None,
    )


def _shortcut(mine: Measured) -> Shortcut:
    found = shortcuts(mine)
    name = max(found, key=lambda name: found[name].mean())
    return Shortcut(name, float(found[name].mean()), difference(mine.credits, found[name], mine.images))


def _against(mine: Measured, other: Measured, p: float) -> Against:
    found = difference(mine.credits, other.credits, mine.images)
    return Against(_share(other), found, p, smallest_detectable(mine.credits, other.credits, mine.images))


def _share(one: Measured) -> Share:
    return Share(float(one.credits.mean()), *grouped_wilson(one.credits, one.images))


def _cell(one: Measured) -> Cell:
    return Cell(len(one.labels), _share(one) if len(one.labels) else None)
