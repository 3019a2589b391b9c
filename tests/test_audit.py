"""`make audit` tells a vulnerable lock from one that nobody could look up."""

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

AUDIT = Path(__file__).parent.parent / "deploy" / "audit"
TABLE = "Name  Version ID\nflask 0.5     PYSEC-2019-179"
UNREACHABLE = "ERROR: Failed to establish a new connection"


@pytest.mark.parametrize(
    ("found", "said", "status", "expected", "hint"),
    [
        ("", "No known vulnerabilities found", 0, 0, ""),
        (TABLE, "Found 1 known vulnerability in 1 package", 1, 1, "known vulnerabilities (above)"),
        ("", UNREACHABLE, 1, 3, "try again with a network"),
    ],
)
def test_two_causes_have_two_exit_codes(
    tmp_path: Path, found: str, said: str, status: int, expected: int, hint: str
) -> None:
    program = tmp_path / "pip-audit"
    program.write_text('#!/bin/sh\nprintf "%s" "$FOUND"\necho "$SAID" >&2\nexit "$STATUS"\n')
    program.chmod(0o755)
    told = {"FOUND": found, "SAID": said, "STATUS": str(status), "PATH": os.environ["PATH"]}
    done = subprocess.run([AUDIT, program, "lock.txt"], env=told, capture_output=True, text=True, check=False)
    assert done.returncode == expected
    assert found in done.stdout
    assert said in done.stderr
    assert hint in done.stderr
