"""`medreward serve`: a clean drain, and one line where it cannot start."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from commands import ANY_PORTS, Run, Served, assert_refused, serving

pytestmark = pytest.mark.slow

BODY = {"question": "Is there a fracture?", "response": "Yes."}


@pytest.fixture
def taken_port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield str(holder.getsockname()[1])


def test_sigterm_finishes_what_is_in_flight(tmp_path: Path) -> None:
    with serving(tmp_path, "--fake-delay-ms", "2000") as served, ThreadPoolExecutor(6) as clients:
        calls = [clients.submit(_score, served.url, f"answer {n}") for n in range(6)]
        _wait_for_in_flight(served, 6)
        served.process.send_signal(signal.SIGTERM)
        assert [call.result().status_code for call in calls] == [200] * 6
        assert served.process.wait(timeout=60) == 0
        assert served.process.stdout is not None
        assert served.process.stdout.read() == ""
        events = [json.loads(line)["event"] for line in served.log.read_text().splitlines()]
        assert "draining" in events
        assert events[-1] == "stopped"


def _score(url: str, response: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/score", json=BODY | {"response": response}, timeout=60)


def _wait_for_in_flight(served: Served, number: int) -> None:
    for _ in range(3000):
        if httpx.get(f"{served.admin_url}/admin/state", timeout=60).json()["requests_in_flight"] == number:
            return
        time.sleep(0.02)
    raise AssertionError("the requests did not arrive")


@pytest.mark.parametrize("door", ["--port", "--grpc-port", "--admin-port"])
def test_a_port_in_use_is_one_line_and_exit_2(run: Run, taken_port: str, door: str) -> None:
    done = run("serve", "--model", "fake", *ANY_PORTS, door, taken_port)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["level"] == "error"
    assert json.loads(line)["event"] == f"cannot listen on 127.0.0.1:{taken_port}: Address already in use"


def test_two_servers_do_not_share_a_grpc_port(run: Run, server: Served) -> None:
    listening = json.loads(server.log.read_text().splitlines()[0])
    done = run("serve", "--model", "fake", *ANY_PORTS, "--grpc-port", str(listening["grpc_port"]))
    assert done.returncode == 2
    assert "Address already in use" in done.stderr


def test_a_host_that_is_none_is_named(run: Run) -> None:
    done = run("serve", "--model", "fake", *ANY_PORTS, "--host", "no-host.invalid")
    assert done.returncode == 2
    assert "no-host.invalid" in _only_error(done)


def test_a_model_that_is_not_there_is_named(run: Run) -> None:
    done = run("serve", *ANY_PORTS, "--model", "not-here")
    assert done.returncode == 2
    assert "'not-here'" in _only_error(done)


def test_a_file_with_another_digest_is_named(run: Run, models_dir: Path) -> None:
    (models_dir / "small" / "score.onnx").write_bytes(b"another graph")
    done = run("serve", *ANY_PORTS, "--model", "small", "--models-dir", models_dir)
    assert done.returncode == 2
    assert "score.onnx" in _only_error(done)


def _only_error(done: subprocess.CompletedProcess[str]) -> str:
    """All of stderr is JSON lines, one of them an error."""
    assert done.stdout == ""
    errors = [line for line in map(json.loads, done.stderr.splitlines()) if line["level"] == "error"]
    assert len(errors) == 1
    return str(errors[0]["event"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "eighty"], ["setting port"]),
        (["--port", "70000"], ["setting port"]),
        (["--prot", "1"], ["--prot", "--port"]),
        (["--queue-cost", "0"], ["setting queue_cost"]),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_2(run_here: Run, flags: list[str], words: list[str]) -> None:
    assert_refused(run_here("serve", *flags), *words)


def test_a_wrong_variable_is_one_line_and_exit_2(run: Run) -> None:
    assert_refused(run("serve", MEDREWARD_PORT="eighty"), "setting port")
