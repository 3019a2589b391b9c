"""Every digest, version and date behind a page."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from medreward.bench.finished import FinishedRun
from medreward.bench.report.headline import Gate
from medreward.bench.report.page import NONE
from medreward.bench.rundir import PREDICTIONS, SUMMARY


def provenance(run: FinishedRun, baseline: FinishedRun | None, gate: Gate | None) -> list[tuple[str, Sequence[str]]]:
    """Returns rows of a name and what each run says."""
    runs = [run_provenance(one) for one in (run, baseline) if one]
    rows: list[tuple[str, Sequence[str]]] = [(name, [_in_words(one[name]) for one in runs]) for name in runs[0]]
    if gate:
        policy = {name: gate.policy.get(name) for name in ("name", "digest")}
        of_gate = {"gate": gate.made, "gate's policy": policy, "gate's code": gate.code}
        rows += [(name, [_in_words(value), *[NONE] * (len(runs) - 1)]) for name, value in of_gate.items()]
    return rows


def run_provenance(run: FinishedRun) -> dict[str, Any]:
    about = run.about
    digests = {}
    for name in (PREDICTIONS, SUMMARY):
        with (run.path / name).open("rb") as file:
            digests[name] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    return {
        "model": run.model.get("name"),
        "version": run.model.get("version"),
        "fingerprint": run.model.get("fingerprint"),
        "runtime": run.model.get("runtime"),
        "the model's own evidence": run.model.get("evidence"),
        "data": about.get("data"),
        "data digest": about.get("data_digest"),
        "labels": run.evidence,
        "findings in the data": about.get("findings"),
        "settings": about.get("settings"),
        "versions": about.get("versions"),
        "processor": {name: about[name] for name in ("cpu", "cores") if name in about},
        "totals": about.get("totals"),
        "last part of the run": about.get("last_part"),
        **digests,
    }


def _in_words(value: Any) -> str:
    """Returns a value as the page shows it, and an object as `too_long error, thinking keep`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(one)}" for name, one in value.items()) or NONE
    return NONE if value is None else str(value)
