"""The real command in processes of its own, and a real server for it to ask."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

MEDREWARD = str(Path(sys.executable).with_name("medreward"))
ANY_PORTS = ["--port", "0", "--grpc-port", "0", "--admin-port", "0"]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("MEDREWARD_", "OTEL_"))}

Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[str]
    url: str
    admin_url: str
    grpc_port: int
    log: Path

    def items_scored(self) -> float:
        metrics = httpx.get(f"{self.admin_url}/metrics", timeout=60).text
        lines = [line for line in metrics.splitlines() if line.startswith('medreward_items_total{outcome="ok"}')]
        return float(lines[0].split()[-1]) if lines else 0.0


@contextmanager
def serving(folder: Path, *flags: str, **variables: str) -> Iterator[Served]:
    log = folder / "serve.log"
    command = [MEDREWARD, "serve", "--model", "fake", *ANY_PORTS, *flags]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=CLEAN | variables, cwd=folder
        )
    try:
        listening = first_ready(process, log)
        urls = [f"http://127.0.0.1:{listening[port]}" for port in ("port", "admin_port")]
        yield Served(process, urls[0], urls[1], listening["grpc_port"], log)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def first_ready(process: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    for _ in range(12_000):  # ten minutes: a worker may have to load torch, on a busy machine
        written = log.read_text()
        assert process.poll() is None, written
        lines = [json.loads(line) for line in written.splitlines(keepends=True) if line.endswith("\n")]
        if any(line["event"] == "ready" for line in lines):
            return next(line for line in lines if line["event"] == "listening")
        time.sleep(0.05)
    raise AssertionError("the server did not become ready")


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit 2 with one clear line."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("medreward: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr
