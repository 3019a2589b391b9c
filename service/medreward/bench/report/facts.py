"""The figures of a report, from one run or two: what is shown, not how."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from medreward.bench.finished import FinishedRun, Measured
from medreward.bench.statistics.accuracy import grouped_wilson
from medreward.bench.statistics.calibration import Calibration, calibration
from medreward.bench.statistics.paired import Difference, adjusted, difference, mcnemar, smallest_difference
from medreward.bench.statistics.shortcuts import by_length, by_position
from medreward.types import DIMENSIONS


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
class Row:
    """One dimension, or one organ on one dimension. No share: no labelled case, or the model has no such dimension."""

    name: str
    n: int
    share: Share | None
    ties: int
    unanswered: int
    by_length: float | None
    by_position: float | None
    against: Against | None


@dataclass(frozen=True, slots=True)
class Cell:
    n: int
    accuracy: float | None

    @property
    def tone(self) -> str:
        return "below" if self.accuracy is not None and self.accuracy < 0.5 else "above"

    @property
    def heat(self) -> int:
        """How strong its colour is, in percent; text on it stays readable."""
        return 0 if self.accuracy is None else round(120 * abs(self.accuracy - 0.5))


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
                (organ, _part(overall, overall.organs == organ), others and _part(others, overall.organs == organ))
                for organ in organs
            ]
        ),
        heat=[_heat(organ, [_part(one, one.organs == organ) for one in measured.values()]) for organ in organs],
        departments=[
            _heat(department, [_part(one, one.departments == department) for one in measured.values()])
            for department in _names(case.department for case in run.cases)
        ],
        calibrations={name: found for name, found in calibrations.items() if found},
    )


def _names(names: Iterable[str | None]) -> list[str]:
    return sorted({name for name in names if name})


def _part(measured: Measured, inside: npt.NDArray[np.bool_]) -> Measured:
    return Measured(*(getattr(measured, array.name)[inside] for array in fields(measured)))


def _heat(name: str, parts: Iterable[Measured]) -> HeatRow:
    return HeatRow(name, [_cell(part) for part in parts])


def _rows(pairs: Sequence[tuple[str, Measured, Measured | None]]) -> list[Row]:
    tests = [mcnemar(mine.credits, other.credits).p for _, mine, other in pairs if other and len(mine.labels)]
    corrected = iter(adjusted(tests, "holm"))
    return [_row(name, mine, other, corrected) for name, mine, other in pairs]


def _row(name: str, mine: Measured, other: Measured | None, corrected: Iterator[float]) -> Row:
    n = len(mine.labels)
    if not n:
        return Row(name, 0, None, 0, 0, None, None, None)
    return Row(
        name=name,
        n=n,
        share=_share(mine),
        ties=int((mine.choices == 0).sum()),
        unanswered=int(np.isnan(mine.choices).sum()),
        by_length=float(by_length(mine.labels, mine.lengths).mean()),
        by_position=float(by_position(mine.labels).mean()),
        against=_against(mine, other, next(corrected)) if other else None,
    )


def _against(mine: Measured, other: Measured, p: float) -> Against:
    found = difference(mine.credits, other.credits, mine.images)
    return Against(_share(other), found, p, smallest_difference(found.n, found.discordant))


def _share(one: Measured) -> Share:
    return Share(float(one.credits.mean()), *grouped_wilson(one.credits, one.images))


def _cell(one: Measured) -> Cell:
    return Cell(len(one.labels), float(one.credits.mean()) if len(one.labels) else None)
