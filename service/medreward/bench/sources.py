"""Where a set comes from: a folder, the hub at a revision, or the embedded phantoms."""

import csv
import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from medreward.artifacts.hub import download
from medreward.bench.cases import CONSTRUCTED, DataSet
from medreward.bench.layout import LABELS, read
from medreward.errors import ConfigurationError

PHANTOM: Final = "phantom"
HUB_ID: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")


def open_set(ref: str, departments: Path | None = None) -> DataSet:
    """Returns the set that `ref` names: a folder, `org/name@revision` or `phantom`.

    Raises ConfigurationError where there is no such set or the file of departments cannot be read.
    """
    mapping = read_departments(departments) if departments else {}
    if ref != PHANTOM:
        return read(folder_of(ref), mapping)
    from medreward.lab.phantoms import benchmark

    with tempfile.TemporaryDirectory() as folder:
        digest = benchmark.write(Path(folder))
        drawn = read(Path(folder), mapping)
    cases = [replace(case, evidence=CONSTRUCTED) for case in drawn.cases]
    # Their own digest is over pixels, the same on every machine; a PNG's bytes need not be.
    return DataSet(cases, drawn.findings, None if departments else digest)


def folder_of(ref: str) -> Path:
    """Returns the folder itself, or the one that the hub's files were downloaded into."""
    if Path(ref).is_dir():
        return Path(ref)
    if hub := HUB_ID.fullmatch(ref):
        return download(hub["repo"], hub["revision"], "dataset", [f"{LABELS}/*"])
    if re.fullmatch(r"[\w.-]+/[\w.-]+", ref):
        raise ConfigurationError(f"{ref} is not a folder; to take it from the hub, name a revision: {ref}@REVISION")
    raise ConfigurationError(f"{ref} is neither a folder nor org/name@revision nor {PHANTOM}")


def read_departments(file: Path) -> dict[str, str]:
    """Reads a JSON object, or CSV lines of two columns: question_id or organ, department."""
    try:
        text = file.read_text("utf-8")
        pairs = json.loads(text).items() if file.suffix == ".json" else filter(None, csv.reader(text.splitlines()))
        return {str(key): str(department) for key, department in pairs}
    except (OSError, ValueError, AttributeError):
        raise ConfigurationError(f"{file} is neither a JSON object nor CSV of two columns") from None
