"""A decision as files: gate.json for programs, JUnit for a CI, Markdown for a pull request."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from medreward.bench.finished import FinishedRun
from medreward.bench.gate.checks import Check, Status
from medreward.bench.gate.deciding import Decision
from medreward.bench.gate.verdict import Verdict, needed_in_words, why_undecided
from medreward.bench.rundir import PREDICTIONS

GATE: Final = "gate.json"
JUNIT: Final = "gate.junit.xml"
MARKDOWN: Final = "gate.md"
SAYS: Final = {Verdict.PROMOTE: "may replace the baseline", Verdict.REFUSE: "must not be released"}

OPEN: Final = {Status.UNDECIDED, Status.NO_LABEL}
FAILURES: Final = {Status.FAIL, *OPEN}
SKIPS: Final = {Status.SKIPPED, Status.NOT_SHOWN}


def document(decision: Decision) -> dict[str, Any]:
    brought, policy = decision.brought, decision.policy
    about = brought.candidate.about
    return {
        "verdict": decision.verdict,
        "reasons": [f"{check.name}: {check.what}" for check in deciding(decision)],
        "cases": len(brought.candidate.cases),
        "cases_needed": decision.needed,
        "made": decision.made,
        "candidate": _run(brought.candidate),
        "baseline": _run(brought.baseline) if brought.baseline else None,
        "blanked": _run(brought.blanked) if brought.blanked else None,
        "data": {"ref": about.get("data"), "digest": brought.candidate.digest, "labels": about.get("evidence")},
        "policy": {"name": policy.name, "digest": policy.digest, "content": policy.policy.model_dump(mode="json")},
        "code": {"version": metadata.version("medreward"), "digest": decision.code},
        "endpoints": {"candidate": brought.url, "baseline": brought.baseline_url},
        "checks": [asdict(check) for check in decision.checks],
    }


def deciding(decision: Decision) -> list[Check]:
    """Returns the checks that a verdict other than promote comes from."""
    statuses = {Verdict.REFUSE: {Status.FAIL}, Verdict.UNDECIDED: OPEN}.get(decision.verdict, set())
    return [check for check in decision.checks if check.status in statuses]


def says(decision: Decision) -> str:
    """Returns what the verdict means for the candidate, to stand behind its name."""
    if decision.verdict != Verdict.UNDECIDED:
        return SAYS[decision.verdict]
    return f"can be neither promoted nor refused: {why_undecided({check.status for check in decision.checks})}"


def write(folder: Path, decision: Decision) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JUNIT).write_bytes(junit(decision))
    (folder / MARKDOWN).write_text(markdown(decision), "utf-8")
    (folder / GATE).write_text(json.dumps(document(decision), indent=2) + "\n", "utf-8")


def forget(folder: Path) -> None:
    """A verdict of before must not be taken for one of now."""
    for name in (GATE, JUNIT, MARKDOWN):
        (folder / name).unlink(missing_ok=True)


def junit(decision: Decision) -> bytes:
    """Returns the checks as a CI reads them. Undecided is a failure there, of that type, for nothing was shown."""
    cases = decision.checks
    counts = {
        "tests": len(cases),
        "failures": sum(check.status in FAILURES for check in cases),
        "skipped": sum(check.status in SKIPS for check in cases),
    }
    suite = ElementTree.Element("testsuite", {"name": "medreward bench gate"} | {k: str(v) for k, v in counts.items()})
    for check in cases:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "gate", "name": check.name})
        if check.status in FAILURES:
            ElementTree.SubElement(case, "failure", {"type": check.status, "message": check.what})
        elif check.status in SKIPS:
            ElementTree.SubElement(case, "skipped", {"message": check.what})
    ElementTree.indent(suite)
    whole: bytes = ElementTree.tostring(suite, "utf-8", xml_declaration=True)
    return whole


def markdown(decision: Decision) -> str:
    return "\n".join(_markdown(decision)) + "\n"


def _markdown(decision: Decision) -> Iterator[str]:
    brought = decision.brought
    yield f"## {decision.verdict.upper()}: {_name(brought.candidate)} {says(decision)}"
    yield ""
    against = f"against {_name(brought.baseline)}" if brought.baseline else "without a baseline"
    yield f"{against}, on {len(brought.candidate.cases)} cases; labels: {labels(brought.candidate)}."
    if needed := needed_in_words(decision.needed):
        yield needed
    yield ""
    yield "| | check | outcome | what was seen |"
    yield "| --- | --- | --- | --- |"
    for check in sorted(decision.checks, key=lambda check: list(ORDER).index(check.status)):
        yield f"| {ORDER[check.status]} | {_cell(check.name)} | {check.status} | {_cell(check.what)} |"
    yield ""
    yield f"policy {_cell(decision.policy.name)} `{decision.policy.digest}`  "
    yield f"data `{brought.candidate.digest}`  "
    yield f"candidate `{brought.candidate.about['model'].get('fingerprint')}`  "
    if brought.baseline:
        yield f"baseline `{brought.baseline.about['model'].get('fingerprint')}`  "
    yield f"code `{decision.code}`"


ORDER: Final = {
    Status.FAIL: "✗",
    Status.NO_LABEL: "?",
    Status.UNDECIDED: "?",
    Status.NOT_SHOWN: "–",  # noqa: RUF001  # a dash is meant
    Status.SKIPPED: "–",  # noqa: RUF001
    Status.PASS: "✓",
}


def labels(run: FinishedRun) -> str:
    """Who says what is right."""
    counts = run.about.get("evidence") or {}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "not stated"


def _run(run: FinishedRun) -> dict[str, Any]:
    digest = hashlib.sha256((run.path / PREDICTIONS).read_bytes()).hexdigest()
    return {**run.about["model"], "run": str(run.path), "predictions": f"sha256:{digest}"}


def _name(run: FinishedRun) -> str:
    model = run.about["model"]
    return _cell(" ".join(str(model[key]) for key in ("name", "version") if model.get(key)))


def _cell(text: str) -> str:
    """A model's name is no markup."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
