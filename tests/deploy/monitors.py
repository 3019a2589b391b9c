"""A real Prometheus and a real Alertmanager, with the files that we ship."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from deploy.charts import ROOT
from programs import installed

RULES = ROOT / "deploy" / "prometheus" / "medreward.rules.yml"
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"


def program(name: str) -> str:
    return installed(name, package="prometheus prometheus-alertmanager")


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [program(str(words[0])), *map(str, words[1:])]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def started(folder: Path, url: str, *command: str) -> Iterator[str]:
    """Runs a program until the block ends, from when its /-/ready answers."""
    log = folder / f"{command[0]}.log"
    with log.open("w") as output:
        process = subprocess.Popen([program(command[0]), *command[1:]], stdout=output, stderr=output, cwd=folder)
    try:
        until(lambda: process.poll() is not None or ready(url))
        assert process.poll() is None, log.read_text()
        yield url
    finally:
        process.terminate()
        process.wait(60)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    for _ in range(int(seconds * 10)):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it never came true")


@contextmanager
def alertmanager(folder: Path) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    flags = (f"--config.file={ALERTMANAGER}", f"--storage.path={folder}/alerts", f"--web.listen-address={address}")
    with started(folder, f"http://{address}", "prometheus-alertmanager", *flags, "--cluster.listen-address=") as url:
        yield url


@dataclass(frozen=True)
class Prometheus:
    url: str

    def get(self, path: str, **params: str) -> Any:
        reply = httpx.get(f"{self.url}/api/v1/{path}", params=params, trust_env=False, timeout=60).json()
        assert reply["status"] == "success", reply
        return reply["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found

    def scrapes(self) -> int:
        """Returns how often the server's metrics were read."""
        found = self.query('count_over_time(up{job="medreward"}[10m])')
        return int(found[0]["value"][1]) if found else 0

    def wait_for_a_scrape(self) -> None:
        before = self.scrapes()
        until(lambda: self.scrapes() > before)


@contextmanager
def prometheus(folder: Path, server: str, alerts: str, labels: Mapping[str, str] | None = None) -> Iterator[Prometheus]:
    """A Prometheus that scrapes `server` each second under the configuration of compose, but for the two addresses, and
    for the labels that stand for those of a cluster.
    """
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (scraped,) = config["scrape_configs"]
    scraped["static_configs"] = [{"targets": [server.removeprefix("http://")], "labels": dict(labels or {})}]
    (alerting,) = config["alerting"]["alertmanagers"]
    alerting["static_configs"] = [{"targets": [alerts.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(json.dumps(config))
    shutil.copy(RULES, folder)
    address = f"127.0.0.1:{free_port()}"
    flags = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", "--log.level=warn")
    with started(folder, f"http://{address}", "prometheus", *flags, f"--web.listen-address={address}") as url:
        yield Prometheus(url)
