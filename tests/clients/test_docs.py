"""The lines of docs/client.md, as they stand there, against a real server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from clients.processes import Process
from pictures import png

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text("utf-8")


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_an_example_prints_rewards(example: str, server: Process, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(png())
    script = example.replace("http://127.0.0.1:8000", server.url("http"))
    script = script.replace("grpc://127.0.0.1:8001", server.url("grpc"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert re.search(r"-?\d\.\d+", done.stdout)
    assert "scan.png" in example
    assert done.stderr == ""
