"""Which cases a reader should see: those that went most wrong, and those that were wrong with most confidence."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from medreward.bench.cases import ANSWERS, Case
from medreward.bench.chooser import OK
from medreward.bench.finished import FinishedRun
from medreward.bench.sheet import CaseRow, PredictionRow
from medreward.types import DIMENSIONS

LONG: Final = 1500
SIDE: Final = 320
QUALITY: Final = 80
Texts = Mapping[tuple[str, str], Case]
Row = tuple[CaseRow, PredictionRow]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One dimension of a case. `sure` is the probability that the model gave to what it chose."""

    dimension: str
    label: str | None
    choice: str | None
    sure: float | None
    logits: tuple[float, float] | None

    @property
    def wrong(self) -> bool:
        return self.label is not None and self.choice != self.label

    @property
    def misplaced(self) -> float:
        """Returns the confidence in the answer that is not the labelled one; 0 where it was not chosen."""
        return self.sure if self.sure is not None and self.wrong and self.choice in ANSWERS else 0.0


@dataclass(frozen=True, slots=True)
class Example:
    """A case as the page shows it; without its texts where the data is not at hand."""

    case: CaseRow
    status: str
    outcomes: Sequence[Outcome]
    picture: str | None
    question: str | None
    answers: Sequence[str]

    @property
    def overall(self) -> Outcome:
        return self.outcomes[-1]

    @property
    def wrong(self) -> int:
        return sum(one.wrong for one in self.outcomes)


def worst(run: FinishedRun) -> list[Row]:
    """Returns the cases that were answered, and wrong on the most dimensions; of equals, the surest."""
    wrong = [(row, [one for one in outcomes(row) if one.wrong]) for row in rows_of(run) if row[1].status == OK]
    wrong.sort(key=lambda case: (-len(case[1]), -sum(one.misplaced for one in case[1])))
    return [row for row, dimensions in wrong if dimensions]


def most_surprising(run: FinishedRun) -> list[Row]:
    """Returns the cases that were wrong on any dimension, with the most confidence first; a judge tells none."""
    sure = [(row, max(one.misplaced for one in outcomes(row))) for row in rows_of(run)]
    sure.sort(key=lambda case: -case[1])
    return [row for row, misplaced in sure if misplaced]


def lost(run: FinishedRun, baseline: FinishedRun) -> list[Row]:
    """Returns the cases that the baseline has right on `overall`, and the run wrong; the surest first."""
    right = {row[0].key for row in rows_of(baseline) if not outcomes(row)[-1].wrong}
    wrong = [(row, outcomes(row)[-1]) for row in rows_of(run) if row[0].key in right]
    wrong = sorted((case for case in wrong if case[1].wrong), key=lambda case: -case[1].misplaced)
    return [row for row, _ in wrong]


def example(row: Row, texts: Texts) -> Example:
    """Returns the case as the page shows it; long texts are cut."""
    case_row, prediction = row
    case = texts.get(case_row.key)

    def cut(text: str) -> str:
        return text if len(text) <= LONG else f"{text[:LONG]} … ({len(text) - LONG} more characters)"

    return Example(
        case=case_row,
        status=prediction.status,
        outcomes=outcomes(row),
        picture=data_uri(case.image) if case else None,
        question=cut(case.question) if case else None,
        answers=[cut(answer) for answer in case.answers] if case else [],
    )


def outcomes(row: Row) -> list[Outcome]:
    """Returns the six dimensions of a case."""
    case, prediction = row
    six = []
    for dimension in DIMENSIONS:
        label, choice = case.labels.get(dimension), prediction.choices[dimension]
        if not prediction.logits:
            six.append(Outcome(dimension, label, choice, None, None))
            continue
        a, b = prediction.logits["A"][dimension], prediction.logits["B"][dimension]
        if a is None or b is None:  # the model has no such dimension, and cannot be wrong on it
            six.append(Outcome(dimension, None, None, None, None))
        else:
            six.append(Outcome(dimension, label, choice, 1 / (1 + math.exp(-min(abs(a - b), 700))), (a, b)))
    return six


def rows_of(run: FinishedRun) -> list[Row]:
    return list(zip(run.cases, run.predictions, strict=True))


def data_uri(data: bytes) -> str | None:
    """Returns a small picture: pixels only, nothing else that its file says. None for what cannot be shown.

    Deep greys are stretched to what a screen has, as a viewer would.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            image.draft("RGB", (SIDE, SIDE))
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((SIDE, SIDE))
            if upright.mode.startswith(("I", "F")):
                grey = np.asarray(upright, np.float64)
                grey -= grey.min()
                shown = Image.fromarray((grey * (255 / (grey.max() or 1))).astype(np.uint8))
            else:
                shown = upright.convert("RGB")
            file = BytesIO()
            shown.save(file, "JPEG", quality=QUALITY)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # the third from broken PNG files
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
