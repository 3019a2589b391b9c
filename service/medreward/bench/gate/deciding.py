"""From runs, a policy and perhaps live endpoints to a decision."""

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from medreward.artifacts.golden import GoldenTriple, read_golden
from medreward.artifacts.manifest import read_manifest
from medreward.artifacts.repository import MANIFEST_FILE, list_models
from medreward.bench.blinding import Images
from medreward.bench.finished import FinishedRun, open_run
from medreward.bench.gate import checks
from medreward.bench.gate.checks import Check, Status
from medreward.bench.gate.fitting import refuse_another_model, refuse_another_set, refuse_broken, refuse_unpinned
from medreward.bench.gate.live import Served, live
from medreward.bench.gate.parity import allowed_from, difference, parity, recorded
from medreward.bench.gate.policy import Policy, Written
from medreward.bench.gate.quality import quality
from medreward.bench.gate.sheet import Answers, Sheet
from medreward.bench.gate.verdict import Verdict, cases_needed, verdict_of
from medreward.errors import ConfigurationError

PACKAGE: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Brought:
    """What the gate is asked to decide on."""

    candidate: FinishedRun
    baseline: FinishedRun | None = None
    blanked: FinishedRun | None = None
    url: str | None = None
    baseline_url: str | None = None
    key: str | None = None
    folder: Path | None = None  # of the candidate's model

    @classmethod
    def read(
        cls,
        policy: Written,
        candidate: Path,
        baseline: Path | None,
        blanked: Path | None,
        url: str | None,
        baseline_url: str | None,
        key: str | None,
        evidence: Path | None,
        models_dir: Path,
    ) -> "Brought":
        """Returns the runs, or refuses what does not fit together or is not what the policy pins."""
        run, dimensions = open_run(candidate), policy.policy.dimensions
        refuse_broken(run, dimensions)
        other = open_run(baseline) if baseline else None
        if other:
            refuse_broken(other, dimensions)
            refuse_another_set(other, run)
        refuse_unpinned(policy, run, other)
        blind = open_run(blanked) if blanked else None
        if blind:
            refuse_broken(blind, dimensions, Images.BLANK)
            refuse_another_set(blind, run)
            refuse_another_model(blind, run)
        if baseline_url and not (url and other):
            raise ConfigurationError("--baseline-url needs --url and --baseline")
        return cls(run, other, blind, url, baseline_url, key, _folder(run, evidence, models_dir))


@dataclass(frozen=True, slots=True)
class Decision:
    verdict: Verdict
    checks: Sequence[Check]
    needed: int | None
    brought: Brought
    policy: Written
    code: str
    made: str


async def decide(policy: Written, brought: Brought) -> Decision:
    _refuse_missing(policy, brought)
    found = [*_of_runs(policy.policy, brought)]
    found += [check async for check in _of_endpoints(policy.policy, brought)]
    verdict, made = verdict_of(found), datetime.now(UTC).isoformat(timespec="seconds")
    needed = cases_needed(found) if verdict == Verdict.UNDECIDED else None
    return Decision(verdict, found, needed, brought, policy, code_digest(), made)


def code_digest() -> str:
    """Of this package's files: who decided."""
    whole = hashlib.sha256()
    for file in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.toml")]):
        whole.update(f"{file.relative_to(PACKAGE)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _refuse_missing(policy: Written, brought: Brought) -> None:
    given = {"baseline": brought.baseline, "blanked": brought.blanked, "url": brought.url}
    missing = [f"--{name}" for name in policy.policy.require if not given[name]]
    if missing:
        raise ConfigurationError(f"policy {policy.name} requires {', '.join(missing)}")


def _of_runs(policy: Policy, brought: Brought) -> Iterator[Check]:
    candidate, baseline, blanked = brought.candidate, brought.baseline, brought.blanked
    yield _complete(candidate)
    of_candidate, of_baseline = Answers.of(candidate), Answers.of(baseline) if baseline else None
    yield from quality(policy, Sheet.of(candidate), of_candidate, of_baseline, Answers.of(blanked) if blanked else None)
    if not baseline:
        yield Check("non_inferiority", Status.SKIPPED, "there is nothing to compare with: no --baseline was given")
    elif policy.parity and _same_model(candidate, baseline):
        yield _equal_numbers(policy.parity.tolerance, candidate, baseline)
    if policy.shortcuts and not blanked:
        yield Check(
            "shortcut/blanked", Status.SKIPPED, "no --blanked run was given; `bench run --images blank` makes one"
        )


def _complete(run: FinishedRun) -> Check:
    """The first cases are the first organs: whatever they show, it is not about the set."""
    limit = run.about.get("settings", {}).get("limit")
    what = (
        f"only the first {len(run.cases)} cases of the set were run (--limit)" if limit else f"{len(run.cases)} cases"
    )
    return Check("complete", checks.of(not limit, failed=False), what, n=len(run.cases))


def _same_model(candidate: FinishedRun, baseline: FinishedRun) -> bool:
    fingerprint = candidate.about["model"].get("fingerprint")
    return fingerprint is not None and fingerprint == baseline.about["model"].get("fingerprint")


def _equal_numbers(exact: float, candidate: FinishedRun, baseline: FinishedRun) -> Check:
    """One fingerprint means one set of numbers, whatever the device. Choices may hide a shift, logits do not."""
    pairs = zip(candidate.predictions, baseline.predictions, strict=True)
    largest = max(difference(recorded(one), recorded(other)) for one, other in pairs)
    allowed = allowed_from(baseline, str(candidate.about["model"].get("runtime")), exact)
    return parity("parity/baseline", "the baseline of the same fingerprint", allowed, largest, len(candidate.cases))


async def _of_endpoints(policy: Policy, brought: Brought) -> AsyncIterator[Check]:
    if not brought.url:
        yield Check(
            "live", Status.SKIPPED, "no endpoint was asked, so parity, smoke and load are open: no --url was given"
        )
        return
    candidate, baseline = Served(brought.url, brought.key, brought.candidate), None
    if brought.baseline_url and brought.baseline:
        baseline = Served(brought.baseline_url, brought.key, brought.baseline)
    async for check in live(policy, candidate, baseline, _golden(brought.folder)):
        yield check


def _golden(folder: Path | None) -> Sequence[GoldenTriple]:
    manifest = read_manifest(folder / MANIFEST_FILE) if folder else None
    return read_golden(folder / manifest.golden) if folder and manifest and manifest.golden else ()


def _folder(run: FinishedRun, named: Path | None, models_dir: Path) -> Path | None:
    """Of the candidate's model: as it is named now, as it was when it ran, or a bundled one of its name."""
    if named:
        if not _is_of(run, named):
            raise ConfigurationError(f"{named} does not hold the model that {run.path} is a run of")
        return named
    known = [Path(run.about["folder"])] if run.about.get("folder") else []
    if run.about["model"]["name"] in list_models(models_dir):
        known.append(models_dir / run.about["model"]["name"])
    return next((folder for folder in known if (folder / MANIFEST_FILE).is_file() and _is_of(run, folder)), None)


def _is_of(run: FinishedRun, folder: Path) -> bool:
    fingerprint: str = read_manifest(folder / MANIFEST_FILE).fingerprint
    return bool(fingerprint == run.about["model"].get("fingerprint"))
