"""Real server processes that can be killed and started again at the same ports."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from commands import CLEAN, MEDREWARD


@dataclass
class Process:
    folder: Path
    flags: tuple[str, ...]
    port: int = 0
    grpc_port: int = 0
    admin_port: int = 0
    is_hanging: bool = False

    @property
    def is_dead(self) -> bool:
        return self._process.poll() is not None

    def start(self) -> None:
        ports = [f"--port={self.port}", f"--grpc-port={self.grpc_port}", f"--admin-port={self.admin_port}"]
        log = self.folder / "serve.log"
        with log.open("w") as stderr:
            command = [MEDREWARD, "serve", "--model", "fake", "--log-level", "info", *ports, *self.flags]
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, env=CLEAN)
        listening = self._listening(log)
        self.port, self.grpc_port, self.admin_port = (listening[n] for n in ("port", "grpc_port", "admin_port"))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(60)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Its connections stay, and nothing is answered."""
        self.signal(signal.SIGSTOP)
        self.is_hanging = True
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)
            self.is_hanging = False

    def count(self, metric: str, *labels: str) -> float:
        """The sum of a metric over its series with those labels."""
        lines = httpx.get(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=60).text.splitlines()
        wanted = [line for line in lines if line.startswith(metric) and all(label in line for label in labels)]
        return sum(float(line.split()[-1]) for line in wanted)

    def url(self, scheme: str) -> str:
        return f"{scheme}://127.0.0.1:{self.grpc_port if scheme == 'grpc' else self.port}"

    def _listening(self, log: Path) -> dict[str, Any]:
        for _ in range(12_000):
            lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
            if any(line["event"] == "ready" for line in lines):
                return next(line for line in lines if line["event"] == "listening")
            assert self._process.poll() is None, log.read_text()
            time.sleep(0.05)
        raise AssertionError("the server did not become ready")
