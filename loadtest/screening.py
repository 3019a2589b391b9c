"""What drift, a shadow and whatever else is switched on cost people who wait, while bulk work floods the server.

Two servers of the fake backend: one watches nothing, the other everything. They are loaded in turns, so that what else
the machine does hits both. A round is a flood of bulk requests and, beside it, `/v1/screen` at a steady rate. The
figure is the ratio of the p99 of two rounds that follow each other; its median must be within the target.
"""

import asyncio
import io
import json
import os
import shlex
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import click
import numpy as np
import uvloop
from loadtest.bodies import Requests, medreward_check
from loadtest.driver import Load, Plan, Report
from loadtest.servers import free_port, medreward_command, serving
from PIL import Image

from medreward.backends.fake import FAKE_MANIFEST

HOST = "127.0.0.1"
FLAGS = ("--fake-delay-ms", "20", "--batch-cost", "3072", "--score-cache-bytes", "0", "--log-level", "error")
OFF = ("--drift", "off")
ON = (
    *("--drift", "on", "--drift-window", "200"),  # so that it tests, and not only learns
    *("--shadow-policy", "load/2", "--shadow-share", "1", "--shadow-until", "100000000"),
)
POLICY = """name = "load"
version = "{version}"
fingerprint = "{fingerprint}"
[[rules]]
name = "good"
verdict = "allow"
measure = "logit"
dimension = "overall"
at_least = {at_least}
"""


@dataclass(frozen=True)
class Round:
    off: Report
    on: Report

    @property
    def ratio(self) -> float:
        return self.on.p99_ms / self.off.p99_ms


@dataclass(frozen=True)
class Outcome:
    p99_ms_off: float  # medians over the rounds
    p99_ms_on: float
    p50_ms_off: float
    p50_ms_on: float
    bulk_on_of_off: float  # bulk answers/s, on over off
    cpu_on_of_off: float  # of the front for an answer, on over off: it holds on a busy machine too
    ratios: list[float]  # of p99, on over off, of each round
    ratio: float  # their median
    clean: bool  # every interactive request was answered


def write_policies(folder: Path) -> Path:
    """Writes two versions of a policy for the fake model and returns their folder."""
    (folder / "load").mkdir(parents=True)
    for version, at_least in (("1", 0.0), ("2", 0.5)):
        text = POLICY.format(version=version, fingerprint=FAKE_MANIFEST.fingerprint, at_least=at_least)
        (folder / "load" / f"{version}.toml").write_text(text)
    (folder / "load" / "current").write_text("1\n")
    return folder


def pictures(number: int, seed: int) -> list[bytes]:
    """Small JPEGs, each another one: drift counts an image once."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(file, "JPEG", quality=60)
        made.append(file.getvalue())
    return made


@dataclass(frozen=True)
class Server:
    port: int
    pid: int

    def cpu_ms(self) -> float:
        """Returns the CPU time that the front has used, its children's left out."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Trial:
    """Loads one server after the other."""

    def __init__(self, seconds: float, rate: float, connections: int) -> None:
        self._seconds = seconds
        self._rate = rate
        self._connections = connections
        self._bulk = Requests(pictures(32, 11), seed=11)
        self._people = Requests(pictures(4096, 12), path="/v1/screen", seed=12)
        self._people.numbers = count(10**15)

    async def round(self, server: Server) -> tuple[Report, Report, float]:
        """Returns what happened to the people who wait and to the flood, and the front's CPU for an answer, in ms."""
        port, before = server.port, server.cpu_ms()
        flood = Plan(HOST, port, self._seconds, 1.0, self._connections)
        people = Plan(HOST, port, self._seconds, 1.0, 64, self._rate)
        people_load = Load(people, self._people, medreward_check(1))
        flooding = asyncio.create_task(Load(flood, self._bulk, medreward_check(1)).run())
        waited, flooded = await people_load.run(), await flooding
        answers = (sum(waited.statuses.values()) + sum(flooded.statuses.values())) * (1 + 1 / self._seconds)
        return waited, flooded, (server.cpu_ms() - before) / answers  # a second of warm-up is not in the statuses

    async def run(self, off: Server, on: Server, rounds: int) -> Outcome:
        pairs, bulk, cpu = [], [], []
        for number in range(rounds):
            order = (off, on) if number % 2 == 0 else (on, off)  # neither is always the second
            found = {server: await self.round(server) for server in order}
            pairs.append(Round(found[off][0], found[on][0]))
            bulk.append(found[on][1].achieved / found[off][1].achieved)
            cpu.append(found[on][2] / found[off][2])
            one = pairs[-1]
            print(f"round {number + 1}: p99 off {one.off.p99_ms:6.1f} ms, on {one.on.p99_ms:6.1f} ms: {one.ratio:.2f}")
        ratios = sorted(one.ratio for one in pairs)
        return Outcome(
            p99_ms_off=statistics.median(one.off.p99_ms for one in pairs),
            p99_ms_on=statistics.median(one.on.p99_ms for one in pairs),
            p50_ms_off=statistics.median(one.off.p50_ms for one in pairs),
            p50_ms_on=statistics.median(one.on.p50_ms for one in pairs),
            bulk_on_of_off=statistics.median(bulk),
            cpu_on_of_off=statistics.median(cpu),
            ratios=ratios,
            ratio=statistics.median(ratios),
            clean=all(report.clean for one in pairs for report in (one.off, one.on)),
        )


def cores() -> tuple[set[int], set[int]]:
    """Returns the cores of the servers and the one of this generator."""
    *servers, own = sorted(os.sched_getaffinity(0))
    return set(servers) or {own}, {own}


def started(stack: ExitStack, flags: Sequence[str], server_cores: set[int]) -> Server:
    """Starts a server for as long as the stack lives."""
    port = free_port()
    command = [*medreward_command(port), *flags]
    return Server(port, stack.enter_context(serving(command, f"http://{HOST}:{port}/readyz", server_cores)))


@click.command(help=__doc__)
@click.option("--seconds", default=10.0, show_default=True, help="Of a round on one server.")
@click.option("--rounds", default=10, show_default=True, help="Pairs of rounds.")
@click.option("--rate", default=20.0, show_default=True, help="Screening requests a second.")
@click.option("--connections", default=16, show_default=True, help="Bulk requests at the same time.")
@click.option("--target", default=1.2, show_default=True, help="Largest median ratio; exit 1 above it.")
@click.option("--with", "more", default="", help="More flags of the server that watches, as '--audit FILE'.")
def main(seconds: float, rounds: int, rate: float, connections: int, target: float, more: str) -> None:
    server_cores, own = cores()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        common = [*FLAGS, "--policies", str(write_policies(Path(folder) / "policies"))]
        record = ("--shadow-file", str(Path(folder) / "shadow.jsonl"))
        off, on = [
            started(stack, (*common, *flags), server_cores) for flags in (OFF, (*ON, *record, *shlex.split(more)))
        ]
        os.sched_setaffinity(0, own)
        outcome = uvloop.run(Trial(seconds, rate, connections).run(off, on, rounds))
    low, high = outcome.ratios[0], outcome.ratios[-1]
    print(f"interactive p99 on/off: {outcome.ratio:.2f} (rounds: {low:.2f} to {high:.2f}); target {target}")
    print(f"CPU of the front for an answer, on/off: {outcome.cpu_on_of_off:.2f}")
    print(json.dumps({**asdict(outcome), "cores": len(server_cores | own), "with": more}))
    raise SystemExit(0 if outcome.ratio <= target and outcome.clean else 1)


if __name__ == "__main__":
    main()
