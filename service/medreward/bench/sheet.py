"""What was asked and what one run answered, as arrays: the one form that every figure is computed from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from medreward.bench.chooser import missing_dimensions
from medreward.bench.statistics import Floats, Groups, Ints
from medreward.bench.statistics.accuracy import credits_of
from medreward.types import DIMENSIONS

Letter = Literal["A", "B"]
#: What a label or a choice is in an array: a side, as `bench.statistics` calls it.
SIDES: Final[dict[str | None, float]] = {"A": 1.0, "B": -1.0, "tie": 0.0, None: np.nan}


class CaseRow(msgspec.Struct, frozen=True):
    """A line of cases.jsonl."""

    question_id: str | int
    organ: str
    department: str | None
    question_type: str | None
    evidence: str | None
    image: str
    lengths: tuple[int, int]
    labels: dict[str, Letter]

    @property
    def key(self) -> tuple[str, str]:
        return self.organ, str(self.question_id)


class PredictionRow(msgspec.Struct, frozen=True):
    """A line of predictions.jsonl."""

    question_id: str | int
    organ: str
    status: str
    choices: dict[str, Literal["A", "B", "tie"] | None]
    logits: dict[Letter, dict[str, float | None]] | None

    @property
    def key(self) -> tuple[str, str]:
        return self.organ, str(self.question_id)

    def margin(self, dimension: str) -> float:
        """Returns the logit of A less that of B; NaN where there are none."""
        a, b = (self.logits["A"][dimension], self.logits["B"][dimension]) if self.logits else (None, None)
        return np.nan if a is None or b is None else a - b


@dataclass(frozen=True, slots=True)
class Column:
    """The labelled cases of one dimension, or those of several dimensions one after the other: one entry for each."""

    labels: Floats
    choices: Floats
    margins: Floats
    images: Groups
    lengths: Ints
    organs: npt.NDArray[np.str_]
    departments: npt.NDArray[np.str_]
    question_types: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def credits(self) -> Floats:
        return credits_of(self.labels, self.choices)

    @property
    def parts(self) -> dict[str, npt.NDArray[np.str_]]:
        """Returns what cases are told apart by: for each part its name of each case, "" where nobody says."""
        return {"organ": self.organs, "department": self.departments, "question_type": self.question_types}

    def inside(self, cases: npt.NDArray[np.bool_]) -> "Column":
        """Returns these cases alone."""
        return Column(*(getattr(self, array.name)[cases] for array in fields(self)))


@dataclass(frozen=True)
class Sheet:
    """One run on all its cases; what has six columns has one for each dimension.

    A label is NaN where a case has none, a choice where there is no answer, a margin where there are no logits.
    """

    labels: Floats
    choices: Floats
    margins: Floats  # logit of A less that of B
    images: Groups  # says which cases share an image
    lengths: Ints  # of both answers, in characters
    organs: npt.NDArray[np.str_]
    departments: npt.NDArray[np.str_]  # "" where nobody says
    question_types: npt.NDArray[np.str_]
    missing: frozenset[str] = frozenset()  # dimensions that the model has not

    @classmethod
    def of(cls, cases: Sequence[CaseRow], predictions: Sequence[PredictionRow]) -> "Sheet":
        def text(values: Iterable[str | None]) -> npt.NDArray[np.str_]:
            return np.array([value or "" for value in values], dtype=np.str_)

        def six(rows: Iterable[list[float]]) -> npt.NDArray[Any]:
            return np.array(list(rows), dtype=np.float64).reshape(-1, len(DIMENSIONS))

        return cls(
            labels=six([SIDES[case.labels.get(d)] for d in DIMENSIONS] for case in cases),
            choices=six([SIDES[prediction.choices[d]] for d in DIMENSIONS] for prediction in predictions),
            margins=six([prediction.margin(d) for d in DIMENSIONS] for prediction in predictions),
            images=np.unique([case.image for case in cases], return_inverse=True)[1].astype(np.int64),
            lengths=np.array([case.lengths for case in cases], dtype=np.int64).reshape(-1, 2),
            organs=text(case.organ for case in cases),
            departments=text(case.department for case in cases),
            question_types=text(case.question_type for case in cases),
            missing=missing_dimensions(prediction.logits for prediction in predictions),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def parts(self) -> dict[str, npt.NDArray[np.str_]]:
        """Returns what cases are told apart by: for each part its name of each case, "" where nobody says."""
        return {"organ": self.organs, "department": self.departments, "question_type": self.question_types}

    def labelled(self, dimension: str) -> int:
        """Returns how many cases have a label on the dimension."""
        return int((~np.isnan(self.labels[:, DIMENSIONS.index(dimension)])).sum())

    def unanswered(self, dimensions: Sequence[str]) -> int:
        """Returns how many cases have no answer on one of these dimensions."""
        places = [DIMENSIONS.index(dimension) for dimension in dimensions]
        return int(np.isnan(self.choices[:, places]).any(axis=1).sum())

    def column(self, *dimensions: str) -> Column:
        """Returns the cases with a label on these dimensions, but none on a dimension that the model has not.

        Several dimensions of a case are as dependent as cases of one image.
        """
        places = [DIMENSIONS.index(dimension) for dimension in dimensions if dimension not in self.missing]
        rows, columns = np.nonzero(~np.isnan(self.labels[:, places]))
        return Column(
            self.labels[:, places][rows, columns],
            self.choices[:, places][rows, columns],
            self.margins[:, places][rows, columns],
            self.images[rows],
            self.lengths[rows],
            self.organs[rows],
            self.departments[rows],
            self.question_types[rows],
        )
