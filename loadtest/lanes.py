"""How long an interactive answer takes beside a flood: with bulk batches of any length, and with short ones.

One server of the bundled model a setting of --bulk-batch-ms, in turns. In each: interactive answers alone, bulk work
alone, and both. The flood is a closed loop, so that the server is never idle. The last line is JSON.
"""

import asyncio
import itertools
import json
import os
import statistics
from dataclasses import asdict, dataclass

import click
import uvloop
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.driver import Load, Plan, Report
from loadtest.overhead import parse_cores
from loadtest.servers import free_port, medreward_command, serving

HOST = "127.0.0.1"
ANY_LENGTH = 1e9


@dataclass(frozen=True)
class Turn:
    """One server's figures: answers a second and ms."""

    alone_p50: float
    alone_p99: float
    beside_p50: float
    beside_p99: float
    bulk_alone: float
    bulk_beside: float
    failures: str  # of requests that were not answered as they must be; empty for none


def requests(lane: str, images: list[bytes], responses: int, seed: int) -> Requests:
    made = Requests(images, responses=responses, seed=seed)
    made.numbers = itertools.count(seed * 10**14)  # 16 digits, in no other lane
    made.head = made.head.replace(b"Host:", b"X-Lane: %s\r\nHost:" % lane.encode())
    return made


async def turn(port: int, seconds: float, rate: float, connections: int, responses: int) -> Turn:
    images = jpegs(32)

    def people() -> Load:
        plan = Plan(HOST, port, seconds, 2.0, 8, rate)  # more would be closed for waiting too long
        return Load(plan, requests("interactive", images, 1, next(seeds)), medreward_check(1))

    def bulk() -> Load:
        plan = Plan(HOST, port, seconds, 2.0, connections)
        return Load(plan, requests("bulk", images, responses, next(seeds)), medreward_check(responses))

    seeds = itertools.count(11)
    alone: Report = await people().run()
    bulk_alone = await bulk().run()
    bulk_beside, beside = await asyncio.gather(bulk().run(), people().run())
    parts = {"alone": alone, "bulk alone": bulk_alone, "bulk beside": bulk_beside, "beside": beside}
    return Turn(
        alone.p50_ms,
        alone.p99_ms,
        beside.p50_ms,
        beside.p99_ms,
        bulk_alone.achieved * responses,
        bulk_beside.achieved * responses,
        "; ".join(
            f"{name}: {report.statuses}, wrong {report.wrong}, unfinished {report.unfinished}"
            for name, report in parts.items()
            if not report.clean
        ),
    )


@click.command(help=__doc__)
@click.option("--model", default="medreward-mini", show_default=True)
@click.option("--seconds", default=15.0, show_default=True, help="Of each of the three parts of a turn.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--rate", default=3.0, show_default=True, help="Interactive requests a second.")
@click.option("--connections", default=64, show_default=True, help="Of the flood.")
@click.option("--responses", default=1, show_default=True, help="Of a bulk request.")
@click.option("--bulk-batch-ms", default=100.0, show_default=True, help="Compared with batches of any length.")
@click.option("--server-cores", default="", help="As 0,1; by default all.")
def main(
    model: str,
    seconds: float,
    rounds: int,
    rate: float,
    connections: int,
    responses: int,
    bulk_batch_ms: float,
    server_cores: str,
) -> None:
    cores = parse_cores(server_cores) if server_cores else os.sched_getaffinity(0)
    turns: dict[float, list[Turn]] = {ANY_LENGTH: [], bulk_batch_ms: []}
    for _ in range(rounds):
        for ms, measured in turns.items():
            port = free_port()
            command = [*medreward_command(port), "--model", model, "--bulk-batch-ms", f"{ms:g}"]
            with serving(command, f"http://{HOST}:{port}/readyz", cores):
                measured.append(uvloop.run(turn(port, seconds, rate, connections, responses)))
    figures = {}
    for ms, measured in turns.items():
        name = "any length" if ms == ANY_LENGTH else f"at most {ms:g} ms"
        parts = {part: [asdict(one)[part] for one in measured] for part in asdict(measured[0]) if part != "failures"}
        figures[name] = {part: (statistics.median(values), min(values), max(values)) for part, values in parts.items()}
        print(f"bulk batches of {name}")
        for one in measured:
            if one.failures:
                print(f"  NOT ALL ANSWERED: {one.failures}")
        for part, (median, least, most) in figures[name].items():
            print(f"  {part:12} {median:9.1f} ({least:.1f} to {most:.1f})")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
