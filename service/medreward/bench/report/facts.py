"""The figures of a report, from one run or two: what is shown, not how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medreward.bench.figures import Figure, micro, shortcuts
from medreward.bench.finished import FinishedRun
from medreward.bench.sheet import Column
from medreward.bench.statistics.calibration import Calibration, calibration
from medreward.bench.statistics.paired import Difference, adjusted, difference, mcnemar, smallest_detectable
from medreward.types import DIMENSIONS


@dataclass(frozen=True, slots=True)
class Against:
    """The baseline on the same cases. `p` is corrected for all that stand in one table."""

    figure: Figure
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
    """One dimension, or one organ on one dimension."""

    name: str
    figure: Figure
    by_length: float | None = None
    by_position: float | None = None
    shortcut: Shortcut | None = None
    against: Against | None = None


@dataclass(frozen=True, slots=True)
class HeatRow:
    name: str
    cells: Sequence[Figure]


@dataclass(frozen=True)
class Facts:
    """`organs` are on `overall`. `calibrations` are by dimension; a judge has none."""

    dimensions: Sequence[Row]
    organs: Sequence[Row]
    heat: Sequence[HeatRow]
    departments: Sequence[HeatRow]
    calibrations: Mapping[str, Calibration]


def facts(run: FinishedRun, baseline: FinishedRun | None) -> Facts:
    """Returns the figures of a run, and of a baseline that is on the same cases."""
    columns = {name: run.column(name) for name in DIMENSIONS}
    both = {*DIMENSIONS} - run.missing - (baseline.missing if baseline else run.missing)
    others = {name: baseline.column(name) if baseline and name in both else None for name in DIMENSIONS}
    calibrations = {name: calibration(column.labels, column.margins) for name, column in columns.items()}
    overall, other = columns["overall"], others["overall"]
    organ_names = sorted({case.organ for case in run.cases})
    by_organ = {organ: overall.organs == organ for organ in organ_names}
    return Facts(
        dimensions=rows([(name, column, others[name]) for name, column in columns.items()]),
        organs=rows(
            [(organ, overall.inside(of), other.inside(of) if other else None) for organ, of in by_organ.items()]
        ),
        heat=[
            HeatRow(organ, [micro(column.inside(column.organs == organ)) for column in columns.values()])
            for organ in organ_names
        ],
        departments=[
            HeatRow(str(name), [micro(column.inside(column.departments == name)) for column in columns.values()])
            for name in np.unique(run.sheet.departments)
            if name
        ],
        calibrations={name: one for name, one in calibrations.items() if one},
    )


def rows(columns: Sequence[tuple[str, Column, Column | None]]) -> list[Row]:
    """Returns a row for each name, a run's column and the baseline's; p values are corrected for all of them."""
    tests = [mcnemar(mine.credits, other.credits).p for _, mine, other in columns if other and len(mine)]
    corrected = iter(adjusted(tests, "holm"))
    table = []
    for name, mine, other in columns:
        if not len(mine):
            table.append(Row(name, micro(mine)))
            continue
        credit, images, against = mine.credits, mine.images, None
        if other:
            both = credit, other.credits, images
            against = Against(micro(other), difference(*both), next(corrected), smallest_detectable(*both))
        by = shortcuts(mine)
        best = max(by, key=lambda name: by[name].mean())
        shortcut = Shortcut(best, float(by[best].mean()), difference(credit, by[best], images))
        accuracies = float(by["length"].mean()), float(by["position"].mean())
        table.append(Row(name, micro(mine), *accuracies, shortcut, against))
    return table
