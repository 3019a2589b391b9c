"""Where a triple's time goes between the door and the device: the device, gaps between its batches, processes.

One server, on the same cores as its backend in a bare loop, in turns, in bursts of a fixed size (a window of seconds
cuts batches off). `device` is the share of the burst in which the device had a batch. CPU is counted by the kernel for
each process, which other work on the machine hardly moves: the loop's is what the model costs, and the rest of the
service's is what being served adds. Images are new in every request. The last line is JSON.
"""

import asyncio
import itertools
import json
import os
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import httpx
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.bundled import PATIENCE, posted
from loadtest.model import UNCACHED, Bare
from loadtest.overhead import parse_cores
from loadtest.servers import free_port, medreward_command, serving

from medreward.artifacts.repository import bundled_models

ROLES: Final = {"decode": "decoders", "device": "worker"}
SUMS: Final = "medreward_inference_duration_seconds"
Figures = dict[str, float]


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path), default=bundled_models() / "medreward-mini")
@click.option("--groups", default="1,8", show_default=True, help="Answers of a request.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--triples", default=64, show_default=True, help="Of a burst.")
@click.option("--connections", default=16, show_default=True)
@click.option("--server-cores", default="0", show_default=True, help="For the loop and for the server.")
def main(folder: Path, groups: str, rounds: int, triples: int, connections: int, server_cores: str) -> None:
    cores, every = parse_cores(server_cores), os.sched_getaffinity(0)
    port = free_port()
    command = [*medreward_command(port), "--model", str(folder), *UNCACHED, *PATIENCE]
    admin = f"http://127.0.0.1:{command[command.index('--admin-port') + 1]}/metrics"
    found: dict[int, list[Figures]] = defaultdict(list)
    with serving(command, f"http://127.0.0.1:{port}/readyz", cores, 300) as server:
        for responses in map(int, groups.split(",")):
            count = max(1, triples // responses)
            os.sched_setaffinity(0, cores)
            bare = Bare(folder, jpegs(count), len(cores), responses)
            for turn in range(rounds + 1):  # the first warms up
                os.sched_setaffinity(0, cores)
                loop = bare.burst()
                os.sched_setaffinity(0, every)
                served = burst(port, server, admin, responses, count, connections)
                if turn:
                    found[responses].append({**loop, **served, "share": loop["loop s"] / served["served s"]})
    medians = {responses: summary(rows, triples) for responses, rows in found.items()}
    print(json.dumps({"benchmark": "flow", "cores": len(cores), "medians": medians}))


def burst(port: int, server: int, admin: str, responses: int, count: int, connections: int) -> Figures:
    """Returns the figures of one burst. Fails unless every reply is right."""
    new = Requests(jpegs(count), responses=responses, cold=True)
    bodies = [b"".join(new()).partition(b"\r\n\r\n")[2] for _ in range(count)]
    before = cpu(server) | device(admin)
    started = time.perf_counter()
    replies = asyncio.run(posted(f"http://127.0.0.1:{port}/score", bodies, connections))
    seconds = time.perf_counter() - started
    used = {name: value - before.get(name, 0.0) for name, value in (cpu(server) | device(admin)).items()}
    if not all(map(medreward_check(responses), replies)):
        raise click.ClickException("not every answer was right")
    return {**used, "served s": seconds, "device": used["busy s"] / seconds}


def device(admin: str) -> Figures:
    text = httpx.get(admin).text
    sums = {end: re.search(rf"^{SUMS}_{end}(?:{{.*}})? (\S+)$", text, re.MULTILINE) for end in ("sum", "count")}
    values = {end: float(found[1]) if found else 0.0 for end, found in sums.items()}
    return {"busy s": values["sum"], "batches": values["count"]}


def cpu(server: int) -> Figures:
    """Returns CPU seconds of the front, the workers and the decoders."""
    seconds: Figures = defaultdict(float)
    children = Path(f"/proc/{server}/task").glob("*/children")
    for pid in [server, *itertools.chain.from_iterable(map(int, listed.read_text().split()) for listed in children)]:
        line = Path(f"/proc/{pid}/cmdline").read_text()
        role = next((name for word, name in ROLES.items() if f"workers.{word}." in line), "front")
        threads = Path(f"/proc/{pid}/task").iterdir()
        seconds[f"{role} CPU s"] += sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9
    return dict(seconds)


def summary(rows: list[Figures], triples: int) -> Figures:
    """Prints and returns the medians of the rounds; seconds are given in ms of a triple."""
    medians: Figures = {}
    for name in rows[0]:
        scale: Callable[[float], float] = (lambda value: value * 1e3 / triples) if name.endswith(" s") else float
        values = [scale(row[name]) for row in rows]
        label = name.replace(" s", ", ms") if name.endswith(" s") else name
        medians[label] = round(statistics.median(values), 4)
        print(f"{label:>18} {statistics.median(values):9.3f} ({min(values):.3f} to {max(values):.3f})")
    print()
    return medians


if __name__ == "__main__":
    main()
