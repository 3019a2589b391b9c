"""What traces cost: the same server without them, with one request in a hundred traced, and with all of them traced.

All servers run side by side on the same cores, and each request goes to all of them, one after the other in an order
that is drawn anew: what else the machine does meets them alike. Two processes of one program differ by some percent for
as long as they live, so all are started several times, and a figure is the mean of the starts' ratios with its 95%
interval. One server is there twice without traces: how far the two are apart is what this machine cannot tell from
nothing. The collector takes what comes and keeps nothing. Before that it prints the CPU time that a trace takes by
itself, which hardly depends on who else uses the machine. Prints a table and, as its last line, JSON.
"""

import http.client
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import scipy.stats
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.servers import free_port, medreward_command, serving
from prometheus_client import CollectorRegistry

from medreward.metrics import Metrics
from medreward.tracing import start_tracing
from medreward.types import DeviceBatch, Phase

OFF = "off"
SAMPLED = {"1% traced": "0.01", "all traced": "1"}
FIGURES = ("cpu", "mean", "p50", "p99")


@dataclass(slots=True)
class Variant:
    """A server, and what each of its requests took: milliseconds until the answer, and of CPU in its front."""

    name: str
    port: int
    pid: int
    requests: Requests
    waited_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port)

    def ask(self) -> None:
        """Sends the next request; stops the run where the answer is not right."""
        head, image, after = self.requests()
        body = head.partition(b"\r\n\r\n")[2] + image + after
        cpu, begun = cpu_ms(self.pid), time.perf_counter()
        self.connection.request("POST", "/score", body, {"content-type": "application/json"})
        reply = self.connection.getresponse()
        answer = reply.read()
        self.waited_ms.append((time.perf_counter() - begun) * 1000)
        self.cpu_ms.append(cpu_ms(self.pid) - cpu)
        if reply.status != 200 or not CHECK(answer):
            raise SystemExit(f"{self.name}: not every answer was a right one: {reply.status} {answer[:200]!r}")

    def figures(self) -> dict[str, float]:
        """Returns the milliseconds by their names."""
        p50, p99 = np.percentile(self.waited_ms, (50, 99))
        mean = statistics.fmean
        return dict(zip(FIGURES, (mean(self.cpu_ms), mean(self.waited_ms), float(p50), float(p99)), strict=True))


def variables(collector: int, ratio: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }


def traced(collector: int, ratio: str) -> list[str]:
    """Returns the command of a server that traces this share of its requests."""
    return [
        "env",
        *(f"{name}={value}" for name, value in variables(collector, ratio).items()),
        *medreward_command(free_port()),
    ]


def cpu_ms(pid: int) -> float:
    """Returns the milliseconds that all threads of a process have used of a core, however long they waited for one."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e6


def measure(served: Mapping[str, Sequence[str]], cores: set[int], images: list[bytes], count: int) -> list[Variant]:
    """Starts all servers, each on its command's port, and returns what so many requests to each of them took."""
    with ExitStack() as running:
        variants = []
        for name, command in served.items():
            port = int(command[command.index("--port") + 1])
            pid = running.enter_context(serving(command, f"http://127.0.0.1:{port}/readyz", cores))
            variants.append(Variant(name, port, pid, Requests(images, responses=1)))
        for n in range(WARM_UP + count):
            if n == WARM_UP:
                for variant in variants:
                    variant.waited_ms.clear()
                    variant.cpu_ms.clear()
            for variant in random.sample(variants, len(variants)):
                variant.ask()
    return variants


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean of ratios, and its 95% interval by Student's t."""
    logs = np.log(ratios)
    half = float(scipy.stats.t.ppf(0.975, len(logs) - 1) * scipy.stats.sem(logs))
    return math.exp(logs.mean()), math.exp(logs.mean() - half), math.exp(logs.mean() + half)


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
WARM_UP = 256


@click.command(help=__doc__)
@click.option("--starts", default=10, show_default=True, type=click.IntRange(2), help="how often all servers start")
@click.option("--requests", default=1000, show_default=True, help="how many requests each server gets after a start")
@click.option("--cores", default="", help="cores of the servers, such as 0,1; by default all but the last")
@click.option("--other", metavar="FILE", multiple=True, help="another build's `medreward`, measured without traces too")
def main(starts: int, requests: int, cores: str, other: Sequence[str]) -> None:
    own = sorted(os.sched_getaffinity(0))
    of_servers = set(map(int, cores.split(","))) if cores else set(own[:-1] or own)
    sink, images = free_port(), jpegs(256)
    print(f"CPU of a trace: {own_cost_us('0'):.1f} us where it is not sampled, {own_cost_us('1'):.1f} us where it is")
    rounds: list[dict[str, dict[str, float]]] = []
    with serving([sys.executable, "-m", "loadtest.sink", str(sink)], f"http://127.0.0.1:{sink}/", set(own[-1:])):
        for n in range(starts):
            print(f"start {n + 1} of {starts}", file=sys.stderr)
            served = {name: medreward_command(free_port()) for name in (OFF, "off again")}
            served |= {name: traced(sink, share) for name, share in SAMPLED.items()}
            served |= {build: [build, *medreward_command(free_port())[1:]] for build in other}
            rounds.append({one.name: one.figures() for one in measure(served, of_servers, images, requests)})
    base = {name: statistics.median(one[OFF][name] for one in rounds) for name in FIGURES}
    print("off: " + ", ".join(f"{name} {figure:.4g} ms" for name, figure in base.items()))
    print(f"{'to off':12}" + "".join(f"{name:>24}" for name in FIGURES))
    for variant in [name for name in rounds[0] if name != OFF]:
        cells = (interval([one[variant][name] / one[OFF][name] for one in rounds]) for name in FIGURES)
        print(f"{variant:12}" + "".join(f"{mean:>10.3f} ({low:.3f}-{high:.3f})" for mean, low, high in cells))
    print(json.dumps(rounds))


if __name__ == "__main__":
    main()
