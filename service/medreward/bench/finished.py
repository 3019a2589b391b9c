"""A run that is over, read back for what is computed from it; one with a hole in it is refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from medreward.bench.answering import missing
from medreward.bench.blinding import Images
from medreward.bench.rundir import CASES, JOURNAL, PREDICTIONS, RUN, SUMMARY, asked
from medreward.bench.sources import open_set
from medreward.bench.statistics import Floats, Groups, Ints
from medreward.bench.statistics.accuracy import credits_of
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

Letter = Literal["A", "B"]
SIDES: Final[Mapping[str | None, float]] = {"A": 1.0, "B": -1.0, "tie": 0.0, None: np.nan}
Given = TypeVar("Given")
T = TypeVar("T")


class Needed(msgspec.Struct, frozen=True):
    """What must stand in run.json, whatever else does."""

    data_digest: str
    model: dict[str, Any]
    settings: dict[str, Any]
    totals: dict[str, Any]


class Asked(msgspec.Struct, frozen=True):
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


class Predicted(msgspec.Struct, frozen=True):
    """A line of predictions.jsonl."""

    question_id: str | int
    organ: str
    status: str
    choices: dict[str, Literal["A", "B", "tie"] | None]
    logits: dict[Letter, dict[str, float | None]] | None

    @property
    def key(self) -> tuple[str, str]:
        return self.organ, str(self.question_id)


@dataclass(frozen=True, slots=True)
class Measured:
    """One dimension of a run, over the cases with a label on it; the words of bench.statistics. No case where the model
    has no such dimension: then nothing was measured.
    """

    labels: Floats
    choices: Floats
    margins: Floats  # logit of A less that of B; NaN where there are none
    images: Groups
    lengths: Ints  # of the two answers, cases x 2
    organs: npt.NDArray[np.str_]
    departments: npt.NDArray[np.str_]  # "" where nobody says
    question_types: npt.NDArray[np.str_]

    @property
    def credits(self) -> Floats:
        return credits_of(self.labels, self.choices)

    def inside(self, cases: npt.NDArray[np.bool_]) -> "Measured":
        """Returns these cases alone."""
        return Measured(*(getattr(self, array.name)[cases] for array in fields(self)))


def measure(cases: Sequence[Asked], predictions: Sequence[Predicted], dimension: str) -> Measured:
    """Returns the cases with a label on the dimension as arrays, in their order."""
    rows = [pair for pair in zip(cases, predictions, strict=True) if dimension in pair[0].labels]
    cases = [case for case, _ in rows]
    numbers = {image: number for number, image in enumerate(sorted({case.image for case in cases}))}
    return Measured(
        labels=np.array([SIDES[case.labels[dimension]] for case in cases], dtype=np.float64),
        choices=np.array([SIDES[prediction.choices[dimension]] for _, prediction in rows], dtype=np.float64),
        margins=np.array([margin(prediction, dimension) for _, prediction in rows], dtype=np.float64),
        images=np.array([numbers[case.image] for case in cases], dtype=np.int64),
        lengths=np.array([case.lengths for case in cases], dtype=np.int64).reshape(-1, 2),
        organs=np.array([case.organ for case in cases], dtype=np.str_),
        departments=np.array([case.department or "" for case in cases], dtype=np.str_),
        question_types=np.array([case.question_type or "" for case in cases], dtype=np.str_),
    )


@dataclass(frozen=True)
class FinishedRun:
    """Cases and predictions are in the same order."""

    path: Path
    about: Mapping[str, Any]  # run.json
    summary: Mapping[str, Any]  # summary.json
    cases: Sequence[Asked]
    predictions: Sequence[Predicted]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def digest(self) -> str:
        return str(self.about["data_digest"])

    @property
    def images(self) -> str:
        """What the model was shown."""
        return str(self.about["settings"].get("images", Images.OWN))

    @property
    def keys(self) -> list[tuple[str, str]]:
        return [case.key for case in self.cases]

    @cached_property
    def missing(self) -> frozenset[str]:
        """Dimensions that the model has not."""
        return missing(prediction.logits for prediction in self.predictions)

    def measured(self, dimension: str) -> Measured:
        return self._measured[dimension]

    @cached_property
    def _measured(self) -> dict[str, Measured]:
        return {
            d: measure((), (), d) if d in self.missing else measure(self.cases, self.predictions, d) for d in DIMENSIONS
        }


def open_run(path: Path) -> FinishedRun:
    for name in (RUN, PREDICTIONS, SUMMARY):
        if not (path / name).is_file():
            raise ConfigurationError(f"{path} is not a finished run, for it has no {name}")
    if (path / JOURNAL).exists():
        raise ConfigurationError(f"{path} is not finished; start the same medreward bench run again, and it goes on")
    about, summary = (_read(path / name) for name in (RUN, SUMMARY))
    _decoded(path / RUN, lambda given: msgspec.convert(given, Needed), about)
    run = FinishedRun(path, about, summary, _cases(path, about), _lines(path / PREDICTIONS, Predicted))
    _refuse_holes(run)
    return run


def _refuse_holes(run: FinishedRun) -> None:
    predictions = run.path / PREDICTIONS
    if not run.cases or run.keys != [prediction.key for prediction in run.predictions]:
        raise ConfigurationError(f"{predictions} is damaged: its rows do not match the cases")
    for answered in (run.summary.get("cases"), run.about["totals"].get("cases")):
        if answered not in (None, len(run.cases)):
            raise ConfigurationError(
                f"{run.path} is damaged: it has {len(run.cases)} cases, but {answered} were answered"
            )
    for prediction in run.predictions:
        logits = prediction.logits.values() if prediction.logits else ()
        if any({*given} != {*DIMENSIONS} for given in (prediction.choices, *logits)):
            raise ConfigurationError(
                f"{predictions} is damaged: {prediction.question_id} does not have the six dimensions"
            )
        if any({name for name, logit in six.items() if logit is None} != run.missing for six in logits):
            raise ConfigurationError(
                f"{predictions} is damaged: {prediction.question_id} lacks a logit that others have"
            )


def _cases(path: Path, about: Mapping[str, Any]) -> list[Asked]:
    """Of its file, or of the data that the run names if it is still the same."""
    if (path / CASES).is_file():
        return _lines(path / CASES, Asked)
    data = open_set(str(about.get("data")))
    if data.digest != about["data_digest"]:
        raise ConfigurationError(f"{path} has no {CASES}, and {about.get('data')} has changed since the run")
    limit = about["settings"].get("limit")
    return [msgspec.convert(asked(case), Asked) for case in data.cases[:limit]]


def _lines(file: Path, kind: type[T]) -> list[T]:
    decoder = msgspec.json.Decoder(kind)
    return [_decoded(file, decoder.decode, line) for line in file.read_bytes().splitlines()]


def _read(file: Path) -> dict[str, Any]:
    return _decoded(file, msgspec.json.Decoder(dict[str, Any]).decode, file.read_bytes())


def _decoded(file: Path, decode: Callable[[Given], T], given: Given) -> T:
    try:
        return decode(given)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is damaged: {error}") from None


def margin(prediction: Predicted, dimension: str) -> float:
    """Logit of A less that of B; NaN where there are none."""
    logits = prediction.logits
    a, b = (logits["A"][dimension], logits["B"][dimension]) if logits else (None, None)
    return np.nan if a is None or b is None else a - b
