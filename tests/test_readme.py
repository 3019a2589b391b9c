"""The README's examples, as they stand there, against a real server."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    command = [sys.executable, "-m", "medreward", "serve", "--port=0", "--grpc-port=0", "--admin-port=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        listening = json.loads(server.stderr.readline())
        while json.loads(server.stderr.readline())["event"] != "ready":
            pass
        try:
            yield {"8000": listening["port"], "8001": listening["grpc_port"]}
        finally:
            server.terminate()
            server.communicate(timeout=60)
        assert server.returncode == 0


def with_ports(example: str, ports: dict[str, int]) -> str:
    for written, real in ports.items():
        example = example.replace(f"127.0.0.1:{written}", f"127.0.0.1:{real}")
    return example


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the images of the example are drawn as the README draws them."""
    made = tmp_path_factory.mktemp("readme")
    (draw,), (said,) = examples("sh"), examples("text")
    command = ["bash", "-ec", draw.replace(".venv/bin/python", sys.executable)]
    assert subprocess.run(command, cwd=made, capture_output=True, text=True, check=True).stdout == said
    return made


def scored(example: str, folder: Path, ports: dict[str, int]) -> list[dict[str, Any]]:
    command = ["bash", "-ec", with_ports(example, ports)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return results


@pytest.mark.parametrize("example", examples("bash"))
def test_a_curl_example_gives_scores(example: str, folder: Path, ports: dict[str, int]) -> None:
    results = scored(example, folder, ports)
    assert results
    assert all(result["status"] == "ok" for result in results)


def test_the_image_example_is_one_where_the_model_is_right_and_gives_what_is_shown(
    folder: Path, ports: dict[str, int]
) -> None:
    (example,) = (one for one in examples("bash") if "chest.png" in one)
    rewards = [result["reward"] for result in scored(example, folder, ports)]
    on_film, on_slice = rewards[:2], rewards[2:]
    assert on_film[0] - on_film[1] > 1  # an X-ray is one
    assert on_slice[1] - on_slice[0] > 1
    table = re.findall(r"^\| (\w+\.png) \| (\S+) \| (\S+) \|$", README, re.MULTILINE)
    assert [image for image, *_ in table] == ["chest.png", "brain.png"]
    cells = [cell for _, *row in table for cell in row]
    assert [cell.startswith("**") for cell in cells] == [True, False, False, True]
    shown = [float(cell.strip("*")) for cell in cells]
    assert shown == pytest.approx(rewards, abs=0.02), "the model changed: run python docs/readme.py"


@pytest.mark.parametrize("example", examples("python"))
def test_a_python_example_runs(example: str, ports: dict[str, int]) -> None:
    command = [sys.executable, "-c", with_ports(example, ports)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2


def test_the_tree_names_what_is_there() -> None:
    tree = README.split("## What is where")[1].split("```")[1]
    root = Path(__file__).parent.parent
    package = root / "service" / "medreward"
    for line in tree.strip().splitlines():
        for name in re.findall(r"^ {0,2}((?:[\w.]+(?:/|\.py) ?)+)", line)[:1]:
            for part in name.split():
                assert (package / part).exists() or (root / part).exists(), part
