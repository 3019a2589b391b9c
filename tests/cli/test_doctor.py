"""`medreward doctor`: what this machine can run."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import CLEAN, Run
from medreward.cli import extras

pytestmark = pytest.mark.slow


def checks(output: str) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(output)["checks"]}


def test_a_machine_that_can_serve_exits_0(run: Run, models_dir: Path) -> None:
    done = run("doctor", "--json", "--model", "small", "--models-dir", models_dir)
    assert done.returncode == 0, done.stdout
    found = checks(done.stdout)
    assert found["model"]["status"] == "ok"
    assert "small 1.2.3" in found["model"]["found"]
    for name in ("python", "fastapi", "httpx", "onnxruntime"):
        assert found[name]["status"] == "ok"
    assert "CPUExecutionProvider" in found["onnxruntime providers"]["found"]
    assert int(found["cores"]["found"].split(",")[0]) >= 1
    assert "pytest" not in found  # what only our own work takes


def test_a_damaged_model_exits_1_and_says_what_to_do(run: Run, models_dir: Path) -> None:
    (models_dir / "small" / "score.onnx").unlink()
    done = run("doctor", "--model", "small", "--models-dir", models_dir)
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if line.split()[:1] == ["model"])
    assert "missing" in line
    assert "score.onnx is missing" in line
    assert "medreward models list" in line


def test_a_port_in_use_is_a_warning(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        done = run("doctor", "--json", MEDREWARD_PORT=port, MEDREWARD_MODEL="fake")
    assert done.returncode == 0
    check = checks(done.stdout)[f"port {port}"]
    assert check["status"] == "warn"
    assert "--port" in check["advice"]


def test_what_is_missing_can_be_installed_from_a_clone_and_from_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    assert extras.install("bench") == f"{sys.executable} -m pip install -e '{root}[bench]'"
    monkeypatch.setattr(extras, "ROOT", tmp_path)
    assert extras.install("bench") == f"{sys.executable} -m pip install 'medreward[bench]'"


def test_without_a_package_bench_names_the_command_that_installs_it(tmp_path: Path) -> None:
    script = "import sys; sys.modules['pyarrow'] = None; from medreward.cli import main; main()"
    command = [sys.executable, "-c", script, "bench", "check", "phantom"]
    done = subprocess.run(command, capture_output=True, text=True, env=CLEAN, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    wanted = f"medreward bench needs pyarrow, which is not installed; run {extras.install('bench')}"
    assert done.stderr == f"medreward: {wanted}\n"


def test_without_the_servers_packages_it_says_what_to_install(tmp_path: Path) -> None:
    script = "import sys; sys.modules['pydantic'] = None; from medreward.cli import main; main()"
    command = [sys.executable, "-c", script, "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=CLEAN, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    assert "[cpu]" in checks(done.stdout)["model"]["advice"]
