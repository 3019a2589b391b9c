"""One Ray cluster for all tests of this folder that need a real one."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from commands import CLEAN

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv" / "ray" / "bin" / "python"
#: A batch holds an answer or two and takes 30 ms, so that a large request is under way for seconds.
SETTINGS = {"model": "fake", "isolation": "inline", "fake_delay_ms": 30, "batch_cost": 64, "drift": "off"}
ENVIRONMENT = {
    "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT / 'tests' / 'support'}",
    "RAY_SERVE_SESSION_ID_HEADER_KEY": "x-affinity-key",
    "RAY_AUTH_MODE": "disabled",  # else it writes a token into the home folder
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # A busy machine is slow to start processes, and none of that is what the tests are about.
    "RAY_worker_register_timeout_seconds": "600",
    # A replica that is slow to say how much it has is not full: its images must not go to another.
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "60",
    "RAY_SERVE_MAX_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "60",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "300",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "300",
}


@dataclass(frozen=True)
class Ray:
    """The cluster, told what to do through its process; `url` is Ray Serve's HTTP proxy."""

    process: subprocess.Popen[str]
    url: str = ""
    grpc_target: str = ""

    def call(self, function: str, *given: Any, **more: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"function": function, "given": given, "more": more}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the cluster's process has ended; its last words stand above"
        answer = json.loads(line)
        assert "error" not in answer, answer
        return answer["value"]

    def counts(self, metric: str) -> list[float]:
        """The sum of a metric in each replica that lives."""
        return [counted(member["metrics"], metric) for member in self.call("members")]


def counted(address: str, metric: str) -> float:
    lines = httpx.get(f"http://{address}/metrics", timeout=60, trust_env=False).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(metric))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Ray]:
    """Three replicas behind Ray's proxies."""
    assert PYTHON.exists(), "Ray is not installed: run `make ray`"
    command = [str(PYTHON), "-W", "ignore", str(Path(__file__).with_name("real_ray.py"))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=CLEAN | ENVIRONMENT) as process:
        ports = Ray(process).call("deploy", SETTINGS, num_replicas=3, max_ongoing_requests=8)
        yield Ray(process, f"http://127.0.0.1:{ports['port']}", f"127.0.0.1:{ports['grpc_port']}")
        assert process.stdin
        process.stdin.close()
