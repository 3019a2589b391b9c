"""A run's folder: what it is a run of, a journal while it runs, its tables when it is done.

A case that is in the journal is never asked again. predictions.jsonl and summary.json depend on the answers alone, not
on how often the run was interrupted; what does depend on that is in run.json.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from medreward.bench.answering import Answer
from medreward.bench.cases import Case
from medreward.errors import ConfigurationError

RUN: Final = "run.json"
CASES: Final = "cases.jsonl"
PREDICTIONS: Final = "predictions.jsonl"
SUMMARY: Final = "summary.json"
JOURNAL: Final = "predictions.part.jsonl"
#: What a run that ended before its first line may have left.
BEFORE_RUN: Final = frozenset({JOURNAL, f"{RUN}.tmp"})
DECIDING: Final = ("data_digest", "model", "settings")


@dataclass(frozen=True, slots=True)
class Identity:
    """What decides the predictions: another of these is another run."""

    data_digest: str
    model: Mapping[str, Any]
    settings: Mapping[str, Any]


class RunDirectory:
    """Opens new, or where a run of the same identity stopped; `predictions` are those that are there, by case."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self._path = path
        self.predictions: dict[tuple[str, str], dict[str, Any]] = {}
        self._begun = self._refuse_another_run(identity)
        self.finished = (path / SUMMARY).exists() and not (path / JOURNAL).exists()
        self._journal: BinaryIO | None = None
        if self.finished:
            self._take((path / PREDICTIONS).read_bytes())
            return
        path.mkdir(parents=True, exist_ok=True)
        self._journal = (path / JOURNAL).open("ab+", buffering=0)
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                f"another medreward bench run is writing to {path}; wait for it, or name another folder"
            ) from None
        self._journal.seek(0)
        written = self._journal.read()
        whole = written[: written.rfind(b"\n") + 1]
        self._journal.truncate(len(whole))  # a line that was cut off by the end of the last run
        self._take(whole)
        if self._begun is None:
            self._begun = asdict(identity)
            _replace(path / RUN, self._begun)

    def record(self, case: Case, answer: Answer) -> None:
        """On its way to the disk when this returns."""
        assert self._journal
        prediction = _prediction(case, answer)
        line = _line(prediction)
        while line:  # a raw file may take less than all of it
            line = line[self._journal.write(line) :]
        self.predictions[case.key] = prediction

    def in_order(self, cases: Sequence[Case]) -> list[Mapping[str, Any]]:
        return [self.predictions[case.key] for case in cases]

    def finish(self, cases: Sequence[Case], summary: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """The journal goes last: until then a run that is interrupted here finishes again."""
        _replace_lines(self._path / CASES, map(asked, cases))
        _replace_lines(self._path / PREDICTIONS, self.in_order(cases))
        _replace(self._path / SUMMARY, summary)
        assert self._begun is not None
        _replace(self._path / RUN, {**self._begun, **about})
        (self._path / JOURNAL).unlink()

    def close(self) -> None:
        if self._journal:
            self._journal.close()

    def _take(self, lines: bytes) -> None:
        try:
            for line in lines.splitlines():
                prediction = json.loads(line)
                self.predictions[prediction["organ"], str(prediction["question_id"])] = prediction
        except (ValueError, LookupError, TypeError):
            raise ConfigurationError(f"the predictions in {self._path} are damaged; name another folder") from None

    def _refuse_another_run(self, identity: Identity) -> dict[str, Any] | None:
        """What run.json says, or None for a new run."""
        file = self._path / RUN
        if not file.exists():
            if self._path.exists() and {path.name for path in self._path.iterdir()} - BEFORE_RUN:
                raise ConfigurationError(
                    f"{self._path} holds files that are not a run's; name a folder that does not exist yet"
                )
            return None
        try:
            begun = json.loads(file.read_bytes())
        except ValueError:
            begun = None
        if not isinstance(begun, dict):
            raise ConfigurationError(f"{file} is damaged; name another folder")
        now = json.loads(json.dumps(asdict(identity)))
        other = [_difference(name, begun.get(name), now[name]) for name in DECIDING if begun.get(name) != now[name]]
        if other:
            raise ConfigurationError(
                f"{self._path} was begun with another {' and another '.join(other)}; name another folder"
            )
        return begun


def _difference(name: str, begun: Any, now: Any) -> str:
    """`settings (limit)`"""
    if not isinstance(begun, dict) or not isinstance(now, dict):
        return name
    return f"{name} ({', '.join(key for key in {**begun, **now} if begun.get(key) != now.get(key))})"


def _prediction(case: Case, answer: Answer) -> dict[str, Any]:
    about = {"question_id": case.question_id, "organ": case.organ, "department": case.department}
    answered = asdict(answer)
    if answer.replies is None:
        del answered["replies"]
    return about | answered


def _line(prediction: Mapping[str, Any]) -> bytes:
    return json.dumps(prediction, separators=(",", ":")).encode() + b"\n"


def asked(case: Case) -> dict[str, Any]:
    """What every figure is computed from: the label and what a case has in common with others, not its texts."""
    return {
        "question_id": case.question_id,
        "organ": case.organ,
        "department": case.department,
        "question_type": case.question_type,
        "evidence": case.evidence,
        "image": hashlib.sha256(case.image).hexdigest(),
        "lengths": [len(answer) for answer in case.answers],
        "labels": {**case.labels},
    }


def _replace_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    draft = file.with_name(f"{file.name}.tmp")
    draft.write_bytes(b"".join(map(_line, rows)))
    draft.replace(file)


def _replace(file: Path, value: Any) -> None:
    draft = file.with_name(f"{file.name}.tmp")
    draft.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    draft.replace(file)
