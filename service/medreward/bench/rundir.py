"""A run's folder: what it is a run of, a journal while it runs, its tables when it is done.

A case that is in the journal is never asked again. predictions.jsonl and summary.json depend on the answers alone, not
on how often the run was interrupted; what does depend on that is in run.json.
"""

import fcntl
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from medreward.bench.cases import Case
from medreward.bench.chooser import Prediction
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
    """Opens a new folder, or one where a run of the same identity stopped.

    `predictions` are those that are there already, by case.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self._path = path
        self.predictions: dict[tuple[str, str], dict[str, Any]] = {}
        self._begun = _read_identity(path)
        if self._begun is not None:
            _refuse_another_run(path, self._begun, identity)
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
        journal = self._journal.read()
        whole = journal[: journal.rfind(b"\n") + 1]
        self._journal.truncate(len(whole))  # a line that was cut off by the end of the last run
        self._take(whole)
        if self._begun is None:
            self._begun = asdict(identity)
            _replace_file(path / RUN, _as_json(self._begun))

    def record(self, case: Case, prediction: Prediction) -> None:
        """Writes the prediction into the journal; it is on its way to the disk when this returns."""
        assert self._journal
        row = {"question_id": case.question_id, "organ": case.organ, "department": case.department}
        row |= asdict(prediction)
        if prediction.replies is None:
            del row["replies"]
        line = _json_line(row)
        while line:  # a raw file may take less than all of it
            line = line[self._journal.write(line) :]
        self.predictions[case.key] = row

    def in_order(self, cases: Sequence[Case]) -> list[Mapping[str, Any]]:
        return [self.predictions[case.key] for case in cases]

    def finish(self, cases: Sequence[Case], summary: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Writes the run's files. The journal goes last: until then a run that is interrupted here finishes again."""
        _replace_file(self._path / CASES, b"".join(_json_line(case_row(case)) for case in cases))
        _replace_file(self._path / PREDICTIONS, b"".join(map(_json_line, self.in_order(cases))))
        _replace_file(self._path / SUMMARY, _as_json(summary))
        assert self._begun is not None
        _replace_file(self._path / RUN, _as_json({**self._begun, **about}))
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


def _read_identity(path: Path) -> dict[str, Any] | None:
    """Returns what run.json says, or None for a new run.

    Raises ConfigurationError if it is damaged, or if the folder holds other files than those of a run.
    """
    file = path / RUN
    if not file.exists():
        if path.exists() and {file.name for file in path.iterdir()} - BEFORE_RUN:
            raise ConfigurationError(f"{path} holds files that are not a run's; name a folder that does not exist yet")
        return None
    try:
        begun = json.loads(file.read_bytes())
    except ValueError:
        begun = None
    if not isinstance(begun, dict):
        raise ConfigurationError(f"{file} is damaged; name another folder")
    return begun


def _refuse_another_run(path: Path, begun: Mapping[str, Any], identity: Identity) -> None:
    """Raises ConfigurationError, with the names of what differs, unless the run was begun with this identity."""
    now = json.loads(json.dumps(asdict(identity)))
    others = []
    for name in DECIDING:
        was, is_ = begun.get(name), now[name]
        if was == is_:
            continue
        if isinstance(was, dict) and isinstance(is_, dict):
            keys = ", ".join(key for key in {**was, **is_} if was.get(key) != is_.get(key))
            others.append(f"{name} ({keys})")
        else:
            others.append(name)
    if others:
        raise ConfigurationError(f"{path} was begun with another {' and another '.join(others)}; name another folder")


def case_row(case: Case) -> dict[str, Any]:
    """Returns what every figure is computed from: labels, and what a case has in common with others, not its texts."""
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


def _json_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _replace_file(file: Path, content: bytes) -> None:
    """Writes the file in one step: whoever reads it sees the old content or the new one."""
    draft = file.with_name(f"{file.name}.tmp")
    draft.write_bytes(content)
    draft.replace(file)
