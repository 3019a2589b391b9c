"""What was asked and what was answered, as arrays: cases x dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medreward.bench.finished import SIDES, FinishedRun, margin
from medreward.bench.statistics import Floats, Groups, Ints
from medreward.bench.statistics.accuracy import credits_of
from medreward.types import DIMENSIONS


@dataclass(frozen=True)
class Sheet:
    """`groups` says which cases share an image; a label is NaN where a case has none on the dimension."""

    labels: Floats
    organs: npt.NDArray[np.str_]
    groups: Groups
    lengths: Ints  # of both answers, in characters

    @classmethod
    def of(cls, run: FinishedRun) -> "Sheet":
        return cls(
            np.array([[SIDES[case.labels.get(dimension)] for dimension in DIMENSIONS] for case in run.cases]),
            np.array([case.organ for case in run.cases]),
            np.unique([case.image for case in run.cases], return_inverse=True)[1].astype(np.int64),
            np.array([case.lengths for case in run.cases], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def labelled(self, dimension: str) -> int:
        """Returns how many cases have a label on the dimension."""
        return int((~np.isnan(self.labels[:, DIMENSIONS.index(dimension)])).sum())


@dataclass(frozen=True)
class Answers:
    """One run on the sheet. A choice or margin is NaN where there is none; a judge has no margins."""

    choices: Floats
    margins: Floats  # logits of A less B

    @classmethod
    def of(cls, run: FinishedRun) -> "Answers":
        choices = [[SIDES[prediction.choices[d]] for d in DIMENSIONS] for prediction in run.predictions]
        margins = [[margin(prediction, d) for d in DIMENSIONS] for prediction in run.predictions]
        return cls(np.array(choices), np.array(margins))

    def unanswered(self, dimensions: Sequence[str]) -> int:
        """Returns how many cases have no answer on one of these dimensions."""
        places = [DIMENSIONS.index(dimension) for dimension in dimensions]
        return int(np.isnan(self.choices[:, places]).any(axis=1).sum())


@dataclass(frozen=True)
class Column:
    """Of the labelled cases of some dimensions, one after the other."""

    labels: Floats
    groups: Groups
    credits: Floats
    margins: Floats
    lengths: Ints
    dimensions: Ints


def column(sheet: Sheet, answers: Answers, dimensions: Sequence[str] = DIMENSIONS, organ: str | None = None) -> Column:
    """Several dimensions of a case are as dependent as cases of one image."""
    places = [DIMENSIONS.index(dimension) for dimension in dimensions]
    taken = ~np.isnan(sheet.labels[:, places])
    if organ is not None:
        taken &= (sheet.organs == organ)[:, None]
    rows, columns = np.nonzero(taken)
    labels = sheet.labels[:, places][rows, columns]
    return Column(
        labels,
        sheet.groups[rows],
        credits_of(labels, answers.choices[:, places][rows, columns]),
        answers.margins[:, places][rows, columns],
        sheet.lengths[rows],
        np.array(places)[columns],
    )
