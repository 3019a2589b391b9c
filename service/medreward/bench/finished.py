"""A run that is over, read back for what is computed from it; one with a hole in it is refused."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from medreward.bench.cases import Images
from medreward.bench.rundir import CASES, JOURNAL, PREDICTIONS, RUN, SUMMARY, case_row
from medreward.bench.sheet import CaseRow, Column, PredictionRow, Sheet
from medreward.bench.sources import open_set
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

Raw = TypeVar("Raw")
T = TypeVar("T")


class RunRecord(msgspec.Struct, frozen=True):
    """What must stand in run.json, whatever else does."""

    data_digest: str
    model: dict[str, Any]
    settings: dict[str, Any]
    totals: dict[str, Any]


@dataclass(frozen=True)
class FinishedRun:
    """Cases and predictions are in the same order."""

    path: Path
    about: Mapping[str, Any]  # run.json
    summary: Mapping[str, Any]  # summary.json
    cases: Sequence[CaseRow]
    predictions: Sequence[PredictionRow]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def model(self) -> Mapping[str, Any]:
        """Returns what run.json says of the model: its name, and for a reward model its fingerprint and runtime."""
        about: Mapping[str, Any] = self.about["model"]
        return about

    @property
    def digest(self) -> str:
        """Returns the digest of the data."""
        return str(self.about["data_digest"])

    @property
    def predictions_digest(self) -> str:
        """Returns a sha256 over predictions.jsonl: a verdict names it, so that it is known what was decided on."""
        return f"sha256:{hashlib.sha256((self.path / PREDICTIONS).read_bytes()).hexdigest()}"

    @property
    def images(self) -> str:
        """Returns what the model was shown in place of each image."""
        return str(self.about["settings"].get("images", Images.OWN))

    @property
    def evidence(self) -> dict[str, int]:
        """Returns how many labels are of which kind."""
        return dict(sorted(Counter(case.evidence or "not stated" for case in self.cases).items()))

    @property
    def missing(self) -> frozenset[str]:
        """Returns the dimensions that the model has not."""
        return self.sheet.missing

    @cached_property
    def sheet(self) -> Sheet:
        return Sheet.of(self.cases, self.predictions)

    def column(self, dimension: str) -> Column:
        """Returns the cases with a label on the dimension; none where the model has no such dimension."""
        return self.sheet.column(dimension)


def open_run(path: Path) -> FinishedRun:
    """Returns the run in the folder; raises ConfigurationError if it is not finished or something in it is damaged."""
    for name in (RUN, PREDICTIONS, SUMMARY):
        if not (path / name).is_file():
            raise ConfigurationError(f"{path} is not a finished run, for it has no {name}")
    if (path / JOURNAL).exists():
        raise ConfigurationError(f"{path} is not finished; start the same medreward bench run again, and it goes on")
    as_object = msgspec.json.Decoder(dict[str, Any]).decode
    about, summary = (decoded(path / name, as_object, (path / name).read_bytes()) for name in (RUN, SUMMARY))
    decoded(path / RUN, lambda raw: msgspec.convert(raw, RunRecord), about)
    if (path / CASES).is_file():
        cases = decoded_lines(path / CASES, CaseRow)
    else:  # a run of before there was such a file: its cases are those of the data, if that is still the same
        data = open_set(str(about.get("data")))
        if data.digest != about["data_digest"]:
            raise ConfigurationError(f"{path} has no {CASES}, and {about.get('data')} has changed since the run")
        limit = about["settings"].get("limit")
        cases = [msgspec.convert(case_row(case), CaseRow) for case in data.cases[:limit]]
    run = FinishedRun(path, about, summary, cases, decoded_lines(path / PREDICTIONS, PredictionRow))
    _refuse_holes(run)
    return run


def _refuse_holes(run: FinishedRun) -> None:
    """Raises ConfigurationError where cases, predictions and counts of a run do not fit together."""
    predictions = run.path / PREDICTIONS
    if not run.cases or [case.key for case in run.cases] != [prediction.key for prediction in run.predictions]:
        raise ConfigurationError(f"{predictions} is damaged: its rows do not match the cases")
    for count in (run.summary.get("cases"), run.about["totals"].get("cases")):
        if count not in (None, len(run.cases)):
            raise ConfigurationError(f"{run.path} is damaged: it has {len(run.cases)} cases, but {count} were answered")
    for prediction in run.predictions:
        logits = prediction.logits.values() if prediction.logits else ()
        if any({*six} != {*DIMENSIONS} for six in (prediction.choices, *logits)):
            raise ConfigurationError(
                f"{predictions} is damaged: {prediction.question_id} does not have the six dimensions"
            )
    for prediction in run.predictions:
        logits = prediction.logits.values() if prediction.logits else ()
        if any({name for name, logit in six.items() if logit is None} != run.missing for six in logits):
            raise ConfigurationError(
                f"{predictions} is damaged: {prediction.question_id} lacks a logit that others have"
            )


def decoded(file: Path, decode: Callable[[Raw], T], raw: Raw) -> T:
    """Returns what `decode` makes of what stands in the file; raises ConfigurationError if that is not possible."""
    try:
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is damaged: {error}") from None


def decoded_lines(file: Path, kind: type[T]) -> list[T]:
    decoder = msgspec.json.Decoder(kind)
    return [decoded(file, decoder.decode, line) for line in file.read_bytes().splitlines()]
