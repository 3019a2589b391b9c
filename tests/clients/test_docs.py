"""The lines of docs/client.md, as they stand there, against a real server."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from clients.processes import Process
from commands import serving
from pictures import png

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "client.md").read_text("utf-8")


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_an_example_prints_rewards(example: str, server: Process, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(png())
    script = example.replace("http://127.0.0.1:8000", server.url("http"))
    script = script.replace("grpc://127.0.0.1:8001", server.url("grpc"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert re.search(r"-?\d\.\d+", done.stdout)
    assert "scan.png" in example
    assert done.stderr == ""


def test_the_example_of_screening_over_grpc_prints_verdicts(server: Process) -> None:
    page = (DOCS / "screening.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(import grpc\n.*?)```", page, re.DOTALL)
    script = example.replace("127.0.0.1:8001", f"127.0.0.1:{server.grpc_port}")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"(\d (allow|review) \d+\.\d+\n){2}", done.stdout)


def test_the_trainers_page_tells_the_bundled_models_limit_and_where_to_see_it(tmp_path: Path) -> None:
    page = (DOCS / "trainers" / "trl.md").read_text("utf-8")
    (told,) = re.findall(r"The bundled model takes (\d+) tokens", page)
    ((command, script),) = re.findall(r"```sh\n(curl -s (?:\S+)) \| python3 -c '(.*)'\n```", page)
    with serving(tmp_path, "--model", "medreward-mini") as served:
        limits = httpx.get(command.split()[-1].replace("http://127.0.0.1:8000", served.url), timeout=60).text
    done = subprocess.run([sys.executable, "-c", script], input=limits, capture_output=True, text=True, check=True)
    assert done.stdout == f"{told}\n"
