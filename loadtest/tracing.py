"""What traces cost: the same server without them, with one request in a hundred traced, and with all of them traced.

All servers run side by side on the same cores and get load in turns, in another order each round. One of them is there
twice without traces: how far the two are apart is what this machine cannot tell from nothing. The collector takes what
comes and keeps nothing. Before that it prints the CPU time that a trace takes by itself, which hardly depends on who
else uses the machine. Prints a table and, as its last line, JSON.
"""

import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.driver import Plan, Report, drive
from loadtest.servers import free_port, medreward_command, serving
from prometheus_client import CollectorRegistry

from medreward.metrics import Metrics
from medreward.tracing import start_tracing
from medreward.types import DeviceBatch, Phase

CONNECTIONS = 32
OFF = "off"
SAMPLED = {"1% traced": "0.01", "all traced": "1"}


@dataclass(slots=True)
class Variant:
    """A server, and what its rounds gave: under load, and with one request at a time."""

    name: str
    port: int
    pid: int = 0
    loaded: list[Report] = field(default_factory=list)
    alone: list[Report] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # of the front, for a request under load

    def figures(self) -> dict[str, list[float]]:
        """Returns the figures of each round by their name."""
        return {
            "cpu": self.cpu_ms,
            "rate": [one.achieved for one in self.loaded],
            "p50": [one.p50_ms for one in self.alone],
            "p99": [one.p99_ms for one in self.alone],
            "p99 loaded": [one.p99_ms for one in self.loaded],
        }


def variables(collector: int, ratio: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }


def command(port: int, collector: int, ratio: str) -> Sequence[str]:
    given = variables(collector, ratio)
    return ["env", *(f"{name}={value}" for name, value in given.items()), *medreward_command(port)]


def measure(variant: Variant, images: list[bytes], seconds: float) -> None:
    for connections, reports in (1, variant.alone), (CONNECTIONS, variant.loaded):
        requests, before = Requests(images, path="/score", responses=1, cold=False), cpu_seconds(variant.pid)
        plan = Plan("127.0.0.1", variant.port, seconds, warm_up=0.0, connections=connections)
        report = drive(plan, requests, CHECK)
        if not report.clean:
            raise SystemExit(f"{variant.name}: not every answer was a right one: {report.statuses}")
        reports.append(report)
    variant.cpu_ms.append((cpu_seconds(variant.pid) - before) * 1000 / report.statuses[200])


def cpu_seconds(pid: int) -> float:
    """Returns the seconds that a process has used of a core, however long it waited for one."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def ratios(variant: Variant, base: Variant) -> dict[str, tuple[float, float, float]]:
    """Returns the median, the lowest and the highest of the rounds' ratios, by the name of the figure."""
    found = {}
    for name, values in variant.figures().items():
        each = [value / of_base for value, of_base in zip(values, base.figures()[name], strict=True)]
        found[name] = (statistics.median(each), min(each), max(each))
    return found


def own_cost_us(ratio: str) -> float:
    """Returns the microseconds of CPU that the trace of one request takes in the thread that serves: the span of the
    server, and where it is sampled the seven others of an image with its question. The least of many tries."""
    given = variables(free_port(), ratio)  # nobody takes the spans
    os.environ |= given
    tracing = start_tracing(Metrics(CollectorRegistry()))
    for name in given:  # the servers have their own
        del os.environ[name]
    assert tracing
    headers, figures = {"host": "localhost", "content-length": "80000"}, {f"figure.{n}": n for n in range(10)}

    def one_request() -> None:
        trace = tracing.http("POST", "http", headers)
        if trace:
            now = time.monotonic()
            batch = trace.of_batch(DeviceBatch(now, now, [Phase("phase", now, now)] * 3, figures), ())
            for name in ("decode", "queue"):
                trace.phase(name, now, now)
            trace.phase("inference", now, now, batch)
            trace.answered("/score", "200", "", {"medreward.responses": 1})

    least = math.inf
    for _ in range(TRIES):
        before = time.thread_time()
        for _ in range(REQUESTS_A_TRY):
            one_request()
        least = min(least, (time.thread_time() - before) / REQUESTS_A_TRY)
    tracing.close()
    return least * 1e6


CHECK = medreward_check(1)
TRIES, REQUESTS_A_TRY = 40, 100


@click.command(help=__doc__)
@click.option("--rounds", default=8, show_default=True, help="how often each server gets its turn")
@click.option("--seconds", default=5.0, show_default=True, help="length of each of a turn's two runs")
@click.option("--cores", default="", help="cores of the servers, such as 0,1; by default all but the last")
def main(rounds: int, seconds: float, cores: str) -> None:
    own = sorted(os.sched_getaffinity(0))
    of_servers = set(map(int, cores.split(","))) if cores else set(own[:-1] or own)
    sink, images = free_port(), jpegs(256)
    variants = [Variant(name, free_port()) for name in (OFF, "off again", *SAMPLED)]
    print(f"CPU of a trace: {own_cost_us('0'):.1f} us where it is not sampled, {own_cost_us('1'):.1f} us where it is")
    with ExitStack() as running:
        collector = [sys.executable, "-m", "loadtest.sink", str(sink)]
        running.enter_context(serving(collector, f"http://127.0.0.1:{sink}/", set(own[-1:])))
        for variant in variants:
            ratio = SAMPLED.get(variant.name)
            served = command(variant.port, sink, ratio) if ratio else medreward_command(variant.port)
            url = f"http://127.0.0.1:{variant.port}/readyz"
            variant.pid = running.enter_context(serving(served, url, of_servers))
            measure(Variant(variant.name, variant.port, variant.pid), images, seconds)  # to warm it up
        for n in range(rounds):
            print(f"round {n + 1} of {rounds}", file=sys.stderr)
            for variant in random.Random(n).sample(variants, len(variants)):
                measure(variant, images, seconds)
    base = variants[0]
    medians = {name: statistics.median(values) for name, values in base.figures().items()}
    print("off: " + ", ".join(f"{name} {value:.4g}" for name, value in medians.items()))
    print(f"{'to off':12}" + "".join(f"{name:>26}" for name in medians))
    for variant in variants[1:]:
        cells = (f"{middle:.3f} ({low:.3f} to {high:.3f})" for middle, low, high in ratios(variant, base).values())
        print(f"{variant.name:12}" + "".join(f"{cell:>26}" for cell in cells))
    print(json.dumps({variant.name: [asdict(one) for one in variant.loaded + variant.alone] for variant in variants}))


if __name__ == "__main__":
    main()
