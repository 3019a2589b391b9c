"""Gate verdicts in a model's folder: written by `medreward bench gate`, asked for by `serve --require-evidence`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from medreward.errors import ConfigurationError

FOLDER: Final = "evidence"
DEFAULT_POLICY: Final = "default"
PROMOTE: Final = "promote"
REFUSE: Final = "refuse"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A verdict in a model's folder, and what it rests on."""

    file: Path
    verdict: str
    fingerprint: str
    policy_digest: str
    data_digest: str | None
    labels: Mapping[str, int] | None  # how many cases have labels of which kind
    baseline: str | None  # its fingerprint


def policies() -> list[str]:
    """Returns the names of the policies that the package brings."""
    return sorted(file.stem for file in _packaged().glob("*.toml"))


def policy_file(name: str) -> Path:
    """Returns the file of a policy of the package if it has that name, else the name as a path."""
    return _packaged() / f"{name}.toml" if name in policies() else Path(name)


def policy_digest(file: Path) -> str:
    """Returns the sha256 of the policy's file, as `sha256sum` says it; fails where there is no such file."""
    try:
        return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    except OSError:
        raise ConfigurationError(
            f"there is no policy at {file}; name a TOML file or one of {', '.join(policies())}"
        ) from None


def write_evidence(folder: Path, document: Mapping[str, Any]) -> Path:
    """Writes a verdict into a model's folder and returns its file, of which there is one for each policy and data.

    The latest verdict replaces the one before, so that no promotion outlives a later refusal on the same data.
    """
    digests = document["policy"]["digest"], document["data"]["digest"]
    name = "-".join(digest.removeprefix("sha256:")[:12] for digest in digests)
    file = folder / FOLDER / f"gate-{name}.json"
    file.parent.mkdir(exist_ok=True)
    draft = file.with_suffix(".tmp")
    draft.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return draft.replace(file)


def require_evidence(folder: Path, fingerprint: str, policy: str) -> Evidence:
    """Returns the promotion of this very model under this very policy; fails where there is none.

    It fails too where the model was refused under the policy on any data: one promotion does not outweigh that.
    """
    wanted = policy_digest(policy_file(policy))
    files = sorted((folder / FOLDER).glob("*.json"))
    reasons, promoted = [], []
    for file in files:
        evidence = _read(file)
        if evidence is None:
            reasons.append(f"{file.name} cannot be read")
        elif evidence.fingerprint != fingerprint:
            reasons.append(f"{file.name} is about another model ({evidence.fingerprint}, not {fingerprint})")
        elif evidence.policy_digest != wanted:
            reasons.append(f"{file.name} is a verdict under another policy ({evidence.policy_digest}, not {wanted})")
        elif evidence.verdict == REFUSE:
            raise ConfigurationError(f"model {folder.name} was refused under policy {policy}: see {file}")
        elif evidence.verdict == PROMOTE:
            promoted.append(evidence)
        else:
            reasons.append(f"{file.name} says {evidence.verdict}")
    if not promoted:
        why = "; ".join(reasons) or f"there is none in {folder / FOLDER}"
        raise ConfigurationError(f"model {folder.name} has no evidence under policy {policy}: {why}")
    return promoted[-1]


def _packaged() -> Path:
    return Path(str(resources.files("medreward.bench.gate") / "policies"))


def _read(file: Path) -> Evidence | None:
    """Returns the verdict in the file, or None if the file is not one."""
    try:
        document = json.loads(file.read_bytes())
        data, baseline = document.get("data") or {}, document.get("baseline") or {}
        return Evidence(
            file,
            document["verdict"],
            document["candidate"]["fingerprint"],
            document["policy"]["digest"],
            data.get("digest"),
            data.get("labels"),
            baseline.get("fingerprint"),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
