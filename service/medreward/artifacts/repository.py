"""Finds the folder of a model by name, path or hub id, and checks its files against its manifest."""

import hashlib
import logging
import re
from pathlib import Path
from typing import Final

from medreward.artifacts.hub import download
from medreward.artifacts.manifest import Manifest, read_manifest
from medreward.errors import ConfigurationError

MANIFEST_FILE: Final = "model.toml"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
HUB_ID: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")
COMMIT: Final = re.compile("[0-9a-f]{40}")
LOADED: Final = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")  # files that transformers may read
CLOCK: Final = 1_000_000_000  # ns that the time of a file may be behind ours: clocks of files are coarse
PACKAGE: Final = Path(__file__).parents[1]


def bundled_models() -> Path:
    """Returns the folder of bundled models: in the installed package, or in the checkout of an editable install."""
    installed = PACKAGE / "models"
    return installed if installed.is_dir() else PACKAGE.parents[1] / "models"


def list_models(models_dir: Path) -> list[str]:
    """Returns the names of the bundled models, sorted."""
    return sorted(
        path.parent.name for path in models_dir.glob(f"*/{MANIFEST_FILE}") if NAME.fullmatch(path.parent.name)
    )


def transformers_files(folder: Path) -> list[Path]:
    """Returns the files in the folder that transformers may read, sorted."""
    return sorted({path for pattern in LOADED for path in folder.glob(pattern)})


def sha256_of(path: Path) -> str:
    """Returns the digest of the file as a manifest has it; raises OSError where the file cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve(ref: str, models_dir: Path) -> Path:
    """Returns the folder of a bundled model, of a path or of a commit on the hub; fails where `ref` is none of them.

    A folder of a path or from the hub may have no manifest. A name never leads out of `models_dir`.
    """
    if ref in list_models(models_dir):
        return models_dir / ref
    if ref and (folder := Path(ref)).is_dir():
        return folder
    if hub := HUB_ID.fullmatch(ref):
        return _from_hub(hub["repo"], hub["revision"])
    known = ", ".join(list_models(models_dir)) or "none"
    raise ConfigurationError(f"no model {ref!r}: neither a directory nor bundled in {models_dir} (there: {known})")


def _from_hub(repo: str, revision: str) -> Path:
    """Downloads the files that the manifest lists, or, without a manifest, those that transformers may read.

    Fails where there is no manifest and the revision is not a commit.
    """
    folder = download(repo, revision, "model", [MANIFEST_FILE])
    if not (folder / MANIFEST_FILE).is_file():
        if not COMMIT.fullmatch(revision):  # nothing would tell when the branch or tag moves
            raise ConfigurationError(
                f"{repo}@{revision} has no {MANIFEST_FILE}: name a commit, as in {repo}@{folder.name}, "
                "or download it and let `medreward models adopt` write one"
            )
        return download(repo, revision, "model", LOADED, but="*/*")
    if folder.name != revision:
        logging.getLogger("medreward").warning(f"model {repo}: revision {revision} is commit {folder.name} today")
    return download(repo, folder.name, "model", [*read_manifest(folder / MANIFEST_FILE).files])


def verify(folder: Path, manifest: Manifest, since: int = 0) -> dict[str, str]:
    """Returns what is wrong, by file, with those that differ from the manifest: empty when all is well.

    Files that were not touched `since` (ns) are not read.
    """
    problems = {name: _problem(folder / name, digest, since) for name, digest in manifest.files.items()}
    return {name: problem for name, problem in problems.items() if problem}


def _problem(path: Path, digest: str, since: int) -> str | None:
    """Returns what is wrong with the file; None if nothing is, or if neither it nor a link to it changed since then."""
    try:
        if max(path.stat().st_ctime_ns, path.lstat().st_ctime_ns) <= since - CLOCK:
            return None
        actual = sha256_of(path)
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return None if actual == digest else f"{path.name} does not match its digest in {MANIFEST_FILE}"
