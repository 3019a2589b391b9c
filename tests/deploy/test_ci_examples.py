"""The examples for a CI call the gate with flags that it has. What the gate does is tested in test_gate_job.py."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.charts import CHART, ROOT

CI = ROOT / "deploy" / "ci"


def github() -> str:
    """Returns the shell of the workflow's first step."""
    job = yaml.safe_load((CI / "github-gate.yml").read_text())["jobs"]["gate"]
    run, keep = job["steps"]
    assert keep["if"] == "always()"
    return str(run["run"])


def gitlab() -> str:
    job = yaml.safe_load((CI / "gitlab-gate.yml").read_text())["gate"]
    assert job["artifacts"]["when"] == "always"
    (line,) = job["script"]
    return str(line)


@pytest.mark.parametrize("shell", [github(), gitlab()], ids=["github", "gitlab"])
def test_the_gate_takes_the_flags_of_the_example(shell: str, tmp_path: Path) -> None:
    words = shlex.split(shell.replace("\\\n", " "), comments=True)
    flags = words[words.index("/opt/gate.py") + 1 :]
    assert {flag.partition("=")[0] for flag in flags} == {
        "--candidate",
        "--baseline-url",
        "--data",
        "--policy",
        "--out",
    }
    assert "COPY helm/medreward/files/gate.py /opt/gate.py" in (ROOT / "deploy" / "Containerfile").read_text()
    # There is no `medreward` on this path: the flags were read when it is looked for.
    gate = [sys.executable, str(CHART / "files" / "gate.py"), *flags]
    done = subprocess.run(gate, capture_output=True, text=True, cwd=tmp_path, env={"PATH": ""}, check=False)
    assert "usage:" not in done.stderr
    assert "'medreward'" in done.stderr
    assert done.returncode != 0


def test_the_key_is_never_an_argument() -> None:
    for shell in (github(), gitlab()):
        assert "$MEDREWARD_KEY" not in shell
    assert re.search(r"MEDREWARD_KEY: \$\{\{ secrets\.MEDREWARD_KEY \}\}", (CI / "github-gate.yml").read_text())
