"""What the audit log costs: /v1/screen with it, with it and without fsync, and without it, at one rate and flat out.

The three servers run side by side and are loaded in turns, so that a busy machine hurts all of them alike. Images are
small, so that the log is much of the work. The log lies in --folder: its disk is what is measured. Prints a table and,
as its last line, JSON.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import click
from loadtest.bodies import Requests, medreward_check
from loadtest.driver import Plan, Report, drive
from loadtest.overload import thumbnails
from loadtest.servers import free_port, medreward_command, serving

from medreward.backends.fake import FAKE_MANIFEST
from medreward.engine.files import find
from medreward.screening.audit.key import AuditKey
from medreward.screening.audit.log import AuditLog, now
from medreward.settings import Settings
from medreward.types import DIMENSIONS

POLICY = """name = "all"
version = "1"
fingerprint = "{fingerprint}"
[[rules]]
name = "good"
verdict = "allow"
measure = "logit"
dimension = "accuracy"
at_least = 0.0
"""
ENTRIES = 1000
SERVERS = {"without": None, "audit": "on", "audit, no fsync": "off"}


@contextmanager
def screening(folder: Path, model: str, fsync: str | None) -> Iterator[int]:
    """Yields the port of a server that decides by one policy."""
    fingerprint = find(Settings(model=model))[1].fingerprint if model != "fake" else FAKE_MANIFEST.fingerprint
    policy = folder / "policies" / "all" / "1.toml"
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text(POLICY.format(fingerprint=fingerprint))
    port = free_port()
    command = [*medreward_command(port), "--model", model, "--policies", str(folder / "policies")]
    command += ["--log-level", "error"]
    if fsync:
        command += ["--audit", str(folder / f"audit-{fsync}.jsonl"), "--audit-fsync", fsync]
    with serving(command, f"http://127.0.0.1:{port}/readyz", os.sched_getaffinity(0)):
        yield port


def append_costs(folder: Path, fsync: str) -> dict[str, float]:
    """Returns what one entry costs without a server: processor time, and the time until it is on disk."""
    six = dict.fromkeys(DIMENSIONS, 0.123456789)
    subject = {"salt": "0" * 32, "images": ["0" * 64], "question": "0" * 64, "response": "0" * 64}
    result = {"item": 0, "response": 0, "verdict": "allow", "rule": "good"}
    times: list[float] = []
    with closing(AuditLog(folder / f"alone-{fsync}.jsonl", AuditKey(bytes(32)), 2**40, fsync == "on")) as log:
        began = time.process_time()
        for _ in range(ENTRIES):
            entry = {"time": now(), "event": "decision", "decision_id": "0" * 32, "request_id": "0" * 32}
            numbers = {"scores": six, "logits": six, "uncertainty": six, "reward": 1.23456789}
            results = [{**result, "subject": {**subject, **numbers}}]
            started = time.perf_counter()
            log.append([{**entry, "results": results}])
            times.append(1000 * (time.perf_counter() - started))
        processor = time.process_time() - began
    p50, p99 = (round(statistics.quantiles(times, n=100)[place], 3) for place in (49, 98))
    return {"processor_us": round(1e6 * processor / ENTRIES), "p50_ms": p50, "p99_ms": p99}


def load(port: int, images: list[bytes], seconds: float, connections: int, rate: float | None) -> Report:
    plan = Plan("127.0.0.1", port, seconds, connections=connections, rate=rate)
    return drive(plan, Requests(images, path="/v1/screen"), medreward_check(1))


@click.command(help=__doc__)
@click.option("--model", default="fake", show_default=True)
@click.option("--rate", default=100.0, show_default=True, help="Requests a second in the open loop.")
@click.option("--rounds", default=5, show_default=True, help="Times that each server is loaded, in turn.")
@click.option("--seconds", default=4.0, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, exists=True), help="Where the logs lie; by default /tmp.")
def main(model: str, rate: float, rounds: int, seconds: float, folder: Path | None) -> None:
    images = thumbnails(32)
    at_rate: dict[str, list[Report]] = {name: [] for name in SERVERS}
    flat_out: dict[str, list[Report]] = {name: [] for name in SERVERS}
    with ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        alone = {fsync: append_costs(here, fsync) for fsync in ("on", "off")}
        ports = {name: stack.enter_context(screening(here, model, fsync)) for name, fsync in SERVERS.items()}
        for _ in range(rounds):
            for name, port in ports.items():
                at_rate[name].append(load(port, images, seconds, 64, rate))
                flat_out[name].append(load(port, images, seconds / 2, 16, None))
    table = {
        name: {
            "p50_ms": round(statistics.median(one.p50_ms for one in at_rate[name]), 2),
            "p99_ms": round(statistics.median(one.p99_ms for one in at_rate[name]), 2),
            "p99_ratio": round(
                statistics.median(
                    mine.p99_ms / plain.p99_ms for mine, plain in zip(at_rate[name], at_rate["without"], strict=True)
                ),
                2,
            ),
            "flat_out_per_s": round(statistics.median(one.achieved for one in flat_out[name])),
            "clean": all(one.clean for one in at_rate[name] + flat_out[name]),
        }
        for name in SERVERS
    }
    print(f"{'':<18}" + "".join(f"{column:>16}" for column in next(iter(table.values()))))
    for name, row in table.items():
        print(f"{name:<18}" + "".join(f"{value!s:>16}" for value in row.values()))
    for fsync, costs in alone.items():
        print(f"one entry, fsync {fsync}: {costs}")
    print(
        json.dumps(
            {"alone": alone, "model": model, "rate": rate, "rounds": rounds, "load": os.getloadavg()[0], **table}
        )
    )
    raise SystemExit(0 if all(row["clean"] for row in table.values()) else 1)


if __name__ == "__main__":
    main()
