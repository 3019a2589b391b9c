"""Gate verdicts in a model's folder: written by `medreward bench gate`, asked for by `serve --require-evidence`."""

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from medreward.errors import ConfigurationError

FOLDER: Final = "evidence"
DEFAULT_POLICY: Final = "default"
PROMOTE: Final = "promote"


def policy_file(name: str) -> Path:
    """A path, or `default` for the one that the package brings."""
    if name == DEFAULT_POLICY:
        return Path(str(resources.files("medreward.bench.gate") / "policy.toml"))
    return Path(name)


def policy_digest(file: Path) -> str:
    """What `sha256sum` says."""
    try:
        return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    except OSError:
        raise ConfigurationError(f"no policy at {file}") from None


def write_evidence(folder: Path, document: Mapping[str, Any]) -> Path:
    """The latest verdict under a policy replaces the one before, so that a refusal is not outlived by a promotion."""
    digest: str = document["policy"]["digest"]
    file = folder / FOLDER / f"gate-{digest.removeprefix('sha256:')[:12]}.json"
    file.parent.mkdir(exist_ok=True)
    draft = file.with_suffix(".tmp")
    draft.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return draft.replace(file)


def require_evidence(folder: Path, fingerprint: str, policy: str) -> None:
    """Refuses a model that was not promoted, as it is, under this policy, as it is."""
    wanted = policy_digest(policy_file(policy))
    reasons = [reason for file in _files(folder) if (reason := _wanting(file, fingerprint, wanted))]
    if not _files(folder):
        reasons = [f"there is none in {folder / FOLDER}"]
    elif len(reasons) < len(_files(folder)):
        return
    raise ConfigurationError(f"model {folder.name} has no evidence under policy {policy}: {'; '.join(reasons)}")


def _files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*.json"))


def _wanting(file: Path, fingerprint: str, policy: str) -> str | None:
    """Why this evidence is not enough."""
    try:
        document = json.loads(file.read_bytes())
        found, model, verdict = document["policy"]["digest"], document["candidate"]["fingerprint"], document["verdict"]
    except (OSError, ValueError, LookupError, TypeError):
        return f"{file.name} cannot be read"
    if model != fingerprint:
        return f"{file.name} is of another model ({model}, not {fingerprint})"
    if found != policy:
        return f"{file.name} is of another policy ({found}, not {policy})"
    return None if verdict == PROMOTE else f"{file.name} says {verdict}"
