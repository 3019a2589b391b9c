"""Checks what operators take, for `make lint-deploy`: hadolint and checkov, and the schemas of compose and of CI files.

checkov looks at deploy/Containerfile and at what helm renders with each set of values in helm/medreward/ci. The command
fails on a finding that WAIVED does not explain, and on a waiver that explains nothing any more.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
CHART: Final = ROOT / "helm" / "medreward"
HELM: Final = ROOT / ".venv" / "bin" / "helm"
LINT: Final = ROOT / ".venv" / "lint" / "bin"
CONTAINERFILE: Final = ROOT / "deploy" / "Containerfile"
#: Files by the name of their schema, which check-jsonschema brings along.
SCHEMAS: Final = {
    "vendor.compose-spec": [*(ROOT / "deploy").glob("compose*.yaml")],
    "vendor.github-workflows": [ROOT / "deploy" / "ci" / "github-gate.yml"],
    "vendor.gitlab-ci": [ROOT / "deploy" / "ci" / "gitlab-gate.yml"],
}


@dataclass(frozen=True)
class Waiver:
    """Why findings of a check stay, on the resources whose `SET/Kind.name` matches."""

    check: str
    where: str
    why: str


WAIVED: Final = (
    Waiver(
        "CKV_DOCKER_7",
        "Dockerfile/.*",
        "the base has a tag and a digest, in the argument BASE that checkov does not follow",
    ),
    Waiver("CKV_K8S_21", ".*", "helm puts objects where --namespace says; checkov reads a file"),
    Waiver("CKV_K8S_11", ".*", "a CPU limit would cut the interactive lane off in the middle of a batch"),
    Waiver("CKV_K8S_43", ".*", "a digest is the user's to give, as in the set airgap; `latest` is refused"),
    Waiver("CKV_K8S_15", ".*", "tags are not moved, and an air-gapped node cannot ask; image.pullPolicy changes it"),
    Waiver("CKV_K8S_8", ".*/Pod.one-medreward-test", "the pod of `helm test` ends"),
    Waiver("CKV_K8S_9", ".*/Pod.one-medreward-test", "the pod of `helm test` ends"),
    Waiver(
        "CKV_K8S_35", ".*/Pod.one-medreward-test", "a key for one call, in a pod that ends; the server's are a file"
    ),
    Waiver("CKV_K8S_35", ".*/Job.*", "a key for one run, in a pod that ends; the server's are a file"),
    Waiver("CKV_K8S_22", "gpu/.*", "NVIDIA's runtime writes into the root while a container starts"),
)


@dataclass(frozen=True)
class Finding:
    check: str
    where: str
    what: str

    def waivers(self) -> list[Waiver]:
        return [it for it in WAIVED if it.check == self.check and re.fullmatch(it.where, self.where)]


def main() -> int:
    failed = not all([run("hadolint", CONTAINERFILE), *(fits(name, files) for name, files in SCHEMAS.items())])
    findings = list(found())
    for finding in findings:
        if not finding.waivers():
            print(f"{finding.where}: {finding.check} {finding.what}")
    useless = [it for it in WAIVED if not any(it in finding.waivers() for finding in findings)]
    for waiver in useless:
        print(f"the waiver of {waiver.check} for {waiver.where} explains nothing: delete it from deploy/lint.py")
    return int(failed or bool(useless) or not all(finding.waivers() for finding in findings))


def run(program: str, *words: str | Path) -> bool:
    """Returns whether it found nothing. What it says is printed."""
    print(program, *words, flush=True)
    return subprocess.run([LINT / program, *words], check=False).returncode == 0


def fits(schema: str, files: list[Path]) -> bool:
    return run("check-jsonschema", "--builtin-schema", schema, *sorted(files))


def found() -> Iterator[Finding]:
    """Yields what checkov finds, and ends the command where it looked at nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "Dockerfile").write_text(CONTAINERFILE.read_text())  # it knows no other name
        yield from checkov(folder, "dockerfile")
        (folder / "Dockerfile").unlink()
        for values in sorted((CHART / "ci").glob("*.yaml")):
            words: list[str | Path] = ["template", "one", CHART, "--namespace", "ns", "--values", values]
            done = subprocess.run([HELM, *words], capture_output=True, text=True, check=True)
            (folder / values.name).write_text(done.stdout)
        yield from checkov(folder, "kubernetes")


def checkov(folder: Path, framework: str) -> Iterator[Finding]:
    print("checkov", framework, flush=True)
    words: list[str | Path] = [
        "--directory",
        folder,
        "--framework",
        framework,
        "--output",
        "json",
        "--quiet",
        "--skip-download",
    ]
    done = subprocess.run([LINT / "checkov", *words], stdout=subprocess.PIPE, text=True, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    if not report.get("summary", {}).get("passed"):
        sys.exit(f"checkov looked at nothing: {done.stdout[:500]}")
    print(f"{report['summary']['passed']} checks passed, {report['summary']['failed']} did not")
    for it in report["results"]["failed_checks"]:
        kind, _, name = it["resource"].replace(".default.", ".").partition(".")
        yield Finding(it["check_id"], f"{Path(it['file_path']).stem}/{kind}.{name}", it["check_name"])


if __name__ == "__main__":
    sys.exit(main())
