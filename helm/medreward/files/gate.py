"""The release gate of an upgrade: measures the candidate and the server that serves, and ends as `bench gate` ends.

0: promote; 1: refused; 2: it could not run; 3: undecided. With --candidate the model is served here, on loopback, for
as long as it is measured; with --candidate-url it is served elsewhere. gate.json is printed at the end.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

#: Who asks. The settings of the server `bench` would take for flags of its own.
CALLER = ("MEDREWARD_KEY", "MEDREWARD_CLIENT_CERT", "MEDREWARD_CLIENT_KEY")
BENCH_ENV = {name: value for name, value in os.environ.items() if name in CALLER or "MEDREWARD_" not in name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    candidate = parser.add_mutually_exclusive_group(required=True)
    candidate.add_argument("--candidate", help="model to serve here")
    candidate.add_argument("--candidate-url", help="server of the candidate")
    parser.add_argument("--baseline-url", required=True, help="the server that serves")
    parser.add_argument("--data", required=True)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--out", required=True, type=Path, help="folder for the runs and gate.json")
    parser.add_argument("--limit", help="first cases of the data alone")
    parser.add_argument("--blanked", action="store_true", help="measure the candidate without images too")
    parser.add_argument("--compare-latency", action="store_true", help="put load on both servers")
    given = parser.parse_args()
    if given.candidate_url:
        sys.exit(gate(given, given.candidate_url))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    places = ["--host", "127.0.0.1", "--port", port, "--grpc-port", "0", "--admin-port", "0"]
    server = subprocess.Popen(["medreward", "serve", "--model", given.candidate, *places])
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(server, url)
        code = gate(given, url)
    finally:
        server.terminate()
        server.wait()
    sys.exit(code)


def gate(given: argparse.Namespace, url: str) -> int:
    """Returns the exit status of the first command that fails, or of the gate."""
    measured = {"candidate": ["--url", url], "baseline": ["--url", given.baseline_url]}
    if given.blanked:
        measured["blanked"] = ["--url", url, "--images", "blank"]
    limit = ["--limit", given.limit] if given.limit else []
    for name, flags in measured.items():
        if code := medreward("bench", "run", "--data", given.data, *flags, *limit, "--out", str(given.out / name)):
            return code
    flags = [part for name in measured for part in (f"--{name}", str(given.out / name))]
    if given.compare_latency:
        flags += ["--baseline-url", given.baseline_url]
    code = medreward("bench", "gate", *flags, "--url", url, "--policy", given.policy, "--out", str(given.out))
    verdict = given.out / "gate.json"
    if verdict.exists():
        print(verdict.read_text(), flush=True)
    return code


def medreward(*words: str) -> int:
    print("medreward", *words, flush=True)
    return subprocess.run(["medreward", *words], env=BENCH_ENV, check=False).returncode


def wait_until_ready(server: "subprocess.Popen[bytes]", url: str) -> None:
    """Returns when the server takes requests; ends with 2 where it stops instead."""
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5).close()  # noqa: S310  # our own server
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    print("the candidate could not be served", flush=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
