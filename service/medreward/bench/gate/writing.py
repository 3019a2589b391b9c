"""A decision as files: gate.json for programs, JUnit for a CI, Markdown for a pull request."""

import json
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from medreward.bench.finished import FinishedRun
from medreward.bench.gate.checks import Check, Status, Verdict, needed_in_words, why_undecided
from medreward.bench.gate.deciding import Decision

GATE: Final = "gate.json"
JUNIT: Final = "gate.junit.xml"
MARKDOWN: Final = "gate.md"
SAYS: Final = {Verdict.PROMOTE: "may replace the baseline", Verdict.REFUSE: "must not be released"}

#: In the order of a table.
SIGNS: Final = {
    Status.FAIL: "✗",
    Status.NO_LABEL: "?",
    Status.UNDECIDED: "?",
    Status.NOT_SHOWN: "–",  # noqa: RUF001  # a dash is meant
    Status.SKIPPED: "–",  # noqa: RUF001
    Status.PASS: "✓",
}

OPEN: Final = {Status.UNDECIDED, Status.NO_LABEL}
FAILURES: Final = {Status.FAIL, *OPEN}
SKIPS: Final = {Status.SKIPPED, Status.NOT_SHOWN}


def document(decision: Decision) -> dict[str, Any]:
    """Returns what gate.json holds."""
    submission, policy = decision.submission, decision.policy
    candidate, about = submission.candidate, submission.candidate.about
    runs = {"candidate": candidate, "baseline": submission.baseline, "blanked": submission.blanked}
    return {
        "verdict": decision.verdict,
        "reasons": [f"{check.name}: {check.what}" for check in reasons(decision)],
        "cases": len(candidate.cases),
        "cases_needed": decision.needed,
        "made": decision.made,
        **{
            name: {**run.model, "run": str(run.path), "predictions": run.predictions_digest} if run else None
            for name, run in runs.items()
        },
        "data": {"ref": about.get("data"), "digest": candidate.digest, "labels": about.get("evidence")},
        "policy": {"name": policy.name, "digest": policy.digest, "content": policy.policy.model_dump(mode="json")},
        "code": {"version": metadata.version("medreward"), "digest": decision.code},
        "endpoints": {"candidate": submission.url, "baseline": submission.baseline_url},
        "checks": [asdict(check) for check in decision.checks],
    }


def reasons(decision: Decision) -> list[Check]:
    """Returns the checks that a verdict other than promote comes from."""
    statuses = {Verdict.REFUSE: {Status.FAIL}, Verdict.UNDECIDED: OPEN}.get(decision.verdict, set())
    return [check for check in decision.checks if check.status in statuses]


def says(decision: Decision) -> str:
    """Returns what the verdict means for the candidate, to stand behind its name."""
    if decision.verdict != Verdict.UNDECIDED:
        return SAYS[decision.verdict]
    return f"can be neither promoted nor refused: {why_undecided({check.status for check in decision.checks})}"


def write(folder: Path, decision: Decision) -> None:
    """Writes the decision in all three forms; gate.json comes last: where it is, the others are too."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JUNIT).write_bytes(junit(decision))
    (folder / MARKDOWN).write_text(markdown(decision), "utf-8")
    (folder / GATE).write_text(json.dumps(document(decision), indent=2) + "\n", "utf-8")


def forget(folder: Path) -> None:
    """Removes the files of an earlier decision, which must not be taken for one of now."""
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
    """Returns the decision for a pull request."""
    candidate, baseline = decision.submission.candidate, decision.submission.baseline
    against = f"against {run_title(baseline)}" if baseline else "without a baseline"
    needed = needed_in_words(decision.needed)
    lines = [
        f"## {decision.verdict.upper()}: {run_title(candidate)} {says(decision)}",
        "",
        f"{against}, on {len(candidate.cases)} cases; labels: {labels(candidate)}.",
        *([needed] if needed else []),
        "",
        "| | check | outcome | what was seen |",
        "| --- | --- | --- | --- |",
    ]
    checks = sorted(decision.checks, key=lambda check: list(SIGNS).index(check.status))
    lines += [
        *(
            f"| {SIGNS[check.status]} | {_cell(check.name)} | {check.status} | {_cell(check.what)} |"
            for check in checks
        ),
        "",
        f"policy {_cell(decision.policy.name)} `{decision.policy.digest}`  ",
        f"data `{candidate.digest}`  ",
        f"candidate `{candidate.model.get('fingerprint')}`  ",
        *([f"baseline `{baseline.model.get('fingerprint')}`  "] if baseline else []),
        f"code `{decision.code}`",
    ]
    return "\n".join(lines) + "\n"


def labels(run: FinishedRun) -> str:
    """Returns who says what is right, and of how many cases."""
    counts = run.about.get("evidence") or {}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "not stated"


def run_title(run: FinishedRun) -> str:
    return _cell(" ".join(str(run.model[key]) for key in ("name", "version") if run.model.get(key)))


def _cell(text: str) -> str:
    """Returns the text as a cell of a Markdown table; a model's name must not become markup."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
