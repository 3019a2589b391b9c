"""Every digest, version and date behind a page."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from medreward.bench.comparing import evidence
from medreward.bench.finished import FinishedRun
from medreward.bench.report.decision import Gate
from medreward.bench.report.page import NONE
from medreward.bench.rundir import PREDICTIONS, SUMMARY


def provenance(run: FinishedRun, baseline: FinishedRun | None, gate: Gate | None) -> list[tuple[str, Sequence[str]]]:
    """Rows of a name and what each run says."""
    runs = [one for one in (run, baseline) if one]
    rows = [(name, [tell(one) for one in runs]) for name, tell in ROWS.items()]
    gates = []
    if gate:
        policy = {name: gate.policy.get(name) for name in ("name", "digest")}
        told = {"gate": gate.made, "gate's policy": policy, "gate's code": gate.code}
        gates = [(name, [_written(value), *[NONE] * (len(runs) - 1)]) for name, value in told.items()]
    return [*rows, *gates]


def _model(name: str) -> Callable[[FinishedRun], str]:
    return lambda run: _written(run.about["model"].get(name))


def _about(name: str) -> Callable[[FinishedRun], str]:
    return lambda run: _written(run.about.get(name))


def _file(name: str) -> Callable[[FinishedRun], str]:
    return lambda run: _digest(run.path / name)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"


def _written(value: Any) -> str:
    """`too_long error, thinking keep`"""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_written(one)}" for name, one in value.items()) or NONE
    return NONE if value is None else str(value)


ROWS: Final[Mapping[str, Callable[[FinishedRun], str]]] = {
    "model": _model("name"),
    "version": _model("version"),
    "fingerprint": _model("fingerprint"),
    "runtime": _model("runtime"),
    "the model's own evidence": _model("evidence"),
    "data": _about("data"),
    "data digest": _about("data_digest"),
    "labels": lambda run: _written(evidence(run)),
    "findings in the data": _about("findings"),
    "settings": _about("settings"),
    "versions": _about("versions"),
    "processor": lambda run: _written({name: run.about[name] for name in ("cpu", "cores") if name in run.about}),
    "totals": _about("totals"),
    "last part of the run": _about("last_part"),
    "predictions.jsonl": _file(PREDICTIONS),
    "summary.json": _file(SUMMARY),
}
