"""From runs, a policy and perhaps live endpoints to a decision."""

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from medreward.artifacts.golden import read_golden
from medreward.artifacts.manifest import read_manifest
from medreward.artifacts.repository import MANIFEST_FILE, list_models
from medreward.bench.cases import Images
from medreward.bench.comparing import refuse_other_cases
from medreward.bench.finished import FinishedRun, open_run
from medreward.bench.gate.checks import Check, Status, Verdict, needed_of_all, status_of, verdict_of
from medreward.bench.gate.fitting import refuse_another_model, refuse_broken, refuse_unpinned
from medreward.bench.gate.live import Served, live
from medreward.bench.gate.parity import baseline_parity
from medreward.bench.gate.policy import NamedPolicy, Policy
from medreward.bench.gate.quality import quality
from medreward.clients import Tls
from medreward.errors import ConfigurationError

PACKAGE: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Submission:
    """What the gate is asked to decide on."""

    candidate: FinishedRun
    baseline: FinishedRun | None = None
    blanked: FinishedRun | None = None
    url: str | None = None
    baseline_url: str | None = None
    key: str | None = None
    tls: Tls | None = None
    folder: Path | None = None  # of the candidate's model

    @classmethod
    def read(
        cls,
        policy: NamedPolicy,
        candidate: Path,
        baseline: Path | None,
        blanked: Path | None,
        url: str | None,
        baseline_url: str | None,
        key: str | None,
        tls: Tls | None,
        evidence: Path | None,
        models_dir: Path,
    ) -> "Submission":
        """Returns the runs, or refuses what does not fit together or is not what the policy pins."""
        run, dimensions = open_run(candidate), policy.policy.dimensions
        refuse_broken(run, dimensions)
        other = open_run(baseline) if baseline else None
        if other:
            refuse_broken(other, dimensions)
            refuse_other_cases([run, other])
        refuse_unpinned(policy, run, other)
        blind = open_run(blanked) if blanked else None
        if blind:
            refuse_broken(blind, dimensions, Images.BLANK)
            refuse_other_cases([run, blind])
            refuse_another_model(blind, run)
        if baseline_url and not (url and other):
            raise ConfigurationError("--baseline-url needs --url and --baseline")
        return cls(run, other, blind, url, baseline_url, key, tls, _model_folder(run, evidence, models_dir))


@dataclass(frozen=True, slots=True)
class Decision:
    verdict: Verdict
    checks: Sequence[Check]
    needed: int | None
    submission: Submission
    policy: NamedPolicy
    code: str
    made: str


async def decide(policy: NamedPolicy, submission: Submission) -> Decision:
    """Returns the decision; raises ConfigurationError where something is missing that the policy requires."""
    given = {"baseline": submission.baseline, "blanked": submission.blanked, "url": submission.url}
    missing = [f"--{name}" for name in policy.policy.require if not given[name]]
    if missing:
        raise ConfigurationError(f"policy {policy.name} requires {', '.join(missing)}")
    checks = [*_run_checks(policy.policy, submission)]
    checks += [check async for check in _endpoint_checks(policy.policy, submission)]
    verdict, made = verdict_of(checks), datetime.now(UTC).isoformat(timespec="seconds")
    needed = needed_of_all(checks) if verdict == Verdict.UNDECIDED else None
    return Decision(verdict, checks, needed, submission, policy, code_digest(), made)


def code_digest() -> str:
    """Returns a sha256 over this package's files: it says who decided."""
    whole = hashlib.sha256()
    for file in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.toml")]):
        whole.update(f"{file.relative_to(PACKAGE)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _run_checks(policy: Policy, submission: Submission) -> Iterator[Check]:
    """Gives the checks of the runs alone."""
    candidate, baseline, blanked = submission.candidate, submission.baseline, submission.blanked
    n, limit = len(candidate.cases), candidate.about.get("settings", {}).get("limit")
    # The first cases are the first organs: whatever they show, it is not about the set.
    what = f"only the first {n} cases of the set were run (--limit)" if limit else f"{n} cases"
    yield Check("complete", status_of(not limit, failed=False), what, n=n)
    sheets = (run.sheet if run else None for run in (baseline, blanked))
    yield from quality(policy, candidate.sheet, *sheets)
    if not baseline:
        yield Check("non_inferiority", Status.SKIPPED, "there is nothing to compare with: no --baseline was given")
    elif policy.parity and candidate.model.get("fingerprint") and is_run_of(baseline, candidate.model["fingerprint"]):
        yield baseline_parity(policy.parity.tolerance, candidate, baseline)
    if policy.shortcuts and not blanked:
        yield Check(
            "shortcut/blanked", Status.SKIPPED, "no --blanked run was given; `bench run --images blank` makes one"
        )


async def _endpoint_checks(policy: Policy, submission: Submission) -> AsyncIterator[Check]:
    """Gives the checks of the endpoints, or one that says that there is none."""
    if not submission.url:
        yield Check(
            "live", Status.SKIPPED, "no endpoint was asked, so parity, smoke and load are open: no --url was given"
        )
        return
    caller = submission.key, submission.tls
    candidate, baseline = Served(submission.url, *caller, submission.candidate), None
    if submission.baseline_url and submission.baseline:
        baseline = Served(submission.baseline_url, *caller, submission.baseline)
    folder = submission.folder
    manifest = read_manifest(folder / MANIFEST_FILE) if folder else None
    golden = read_golden(folder / manifest.golden) if folder and manifest and manifest.golden else ()
    async for check in live(policy, candidate, baseline, golden):
        yield check


def _model_folder(run: FinishedRun, named: Path | None, models_dir: Path) -> Path | None:
    """Returns the folder of the run's model: as it is named now, as it was when it ran, or a bundled one of its name.

    None where none of them holds it; raises ConfigurationError if the named one does not.
    """
    if named:
        if not is_run_of(run, read_manifest(named / MANIFEST_FILE).fingerprint):
            raise ConfigurationError(f"{named} does not hold the model that {run.path} is a run of")
        return named
    folders = [Path(run.about["folder"])] if run.about.get("folder") else []
    if run.model["name"] in list_models(models_dir):
        folders.append(models_dir / run.model["name"])
    for folder in folders:
        file = folder / MANIFEST_FILE
        if file.is_file() and is_run_of(run, read_manifest(file).fingerprint):
            return folder
    return None


def is_run_of(run: FinishedRun, fingerprint: str) -> bool:
    return bool(run.model.get("fingerprint") == fingerprint)
