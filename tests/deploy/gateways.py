"""A real nginx and a real Envoy, with the files of deploy/gateway, in front of servers on loopback."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from deploy.charts import ROOT
from deploy.monitors import free_port, until
from programs import installed

FOLDER = ROOT / "deploy" / "gateway"
#: Where nginx is built to keep files while it passes them on; it makes these folders even if it never writes a file.
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Gateway:
    rest: int
    rpc: int

    def url(self, door: str) -> str:
        return f"{door}://127.0.0.1:{self.rpc if door == 'grpc' else self.rest}"


@contextmanager
def gateway(
    name: str, folder: Path, servers: Sequence[tuple[int, int]], max_conns: int = 64, is_ready: bool = True
) -> Iterator[Gateway]:
    """Runs nginx or Envoy until the block ends; `servers` are the ports of REST and gRPC of three servers.

    With `is_ready` it is waited for until a server's readiness comes through.
    """
    ports = Gateway(free_port(), free_port())
    config = folder / ("nginx.conf" if name == "nginx" else "envoy.yaml")
    text = (FOLDER / config.name).read_text()
    if name == "nginx":
        text = _for_nginx(text, folder, servers, ports, max_conns)
        program = installed("nginx", "/usr/sbin/nginx", package="nginx")
        command = [program, "-p", str(folder), "-c", str(config), "-g", "daemon off;"]
    else:
        text = _for_envoy(text, servers, ports)
        beside = Path(sys.executable).with_name("envoy")
        program = str(beside) if beside.exists() else installed("envoy", package="Envoy from its own site")
        command = [
            program,
            "-c",
            str(config),
            "--log-level",
            "warn",
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
        ]
    config.write_text(text)
    log = folder / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        for port in (ports.rest, ports.rpc):
            _wait_for(port, process, log)
        if is_ready:
            until(lambda: httpx.get(f"{ports.url('http')}/readyz", trust_env=False, timeout=60).status_code == 200)
        yield ports
    finally:
        process.terminate()
        process.wait(60)


def _for_nginx(text: str, folder: Path, servers: Sequence[tuple[int, int]], ports: Gateway, max_conns: int) -> str:
    for number, (rest, rpc) in enumerate(servers):
        text = text.replace(f"medreward-{number}:8000", f"127.0.0.1:{rest}")
        text = text.replace(f"medreward-{number}:8001", f"127.0.0.1:{rpc}")
    text = text.replace("listen 8000", f"listen 127.0.0.1:{ports.rest}").replace(
        "listen 8001", f"listen 127.0.0.1:{ports.rpc}"
    )
    text = text.replace("max_conns=64", f"max_conns={max_conns}").replace("/run/nginx.pid", f"{folder}/nginx.pid")
    places = "".join(f"    {it}_temp_path {folder}/{it};\n" for it in TEMPORARY)
    return text.replace("http {\n", f"http {{\n{places}")


def _for_envoy(text: str, servers: Sequence[tuple[int, int]], ports: Gateway) -> str:
    text = text.replace("0.0.0.0, port_value: 8000", f"127.0.0.1, port_value: {ports.rest}")
    text = text.replace("0.0.0.0, port_value: 8001", f"127.0.0.1, port_value: {ports.rpc}")
    for number, (rest, rpc) in enumerate(servers):
        text = text.replace(f"medreward-{number}, port_value: 8000", f"127.0.0.1, port_value: {rest}")
        text = text.replace(f"medreward-{number}, port_value: 8001", f"127.0.0.1, port_value: {rpc}")
    return text


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text())
