"""The bundled model behind our server and behind LitServe, from the same code, in turns: groups and single answers.

Images come again, as they do in training, and both keep them; every response is one that was never sent before.
LitServe runs with one worker on all cores and with a worker a core, and its better rate counts. It comes from the
environment that `make peers` makes. Prints a table of triples/s; the last line is JSON.
"""

import asyncio
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click
import httpx
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.overhead import parse_cores
from loadtest.servers import ROOT, free_port, medreward_command, serving

GROUPS: Final = (8, 1)
IMAGES: Final = 16
START_SECONDS: Final = 600.0
#: On a machine that is busy with other work a worker may be kept waiting for longer than a server would bear.
PATIENCE: Final = ("--hang-seconds", "60", "--deadline-seconds", "300", "--batch-seconds", "300")
OURS: Final = "medreward"
PEERS: Final = ROOT / ".venv" / "peers" / "bin" / "python"


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True)
@click.option("--triples", default=256, show_default=True, help="Of a burst; one of the same size warms up.")
@click.option("--connections", default=16, show_default=True)
@click.option("--server-cores", default="", help="By default all, which the load generator then shares.")
@click.option("--peers-python", type=click.Path(path_type=Path), default=PEERS, help="By default that of `make peers`.")
def main(rounds: int, triples: int, connections: int, server_cores: str, peers_python: Path) -> None:
    cores = parse_cores(server_cores) if server_cores else os.sched_getaffinity(0)
    litserve = [str(peers_python), "-m", "loadtest.peer_bundled"]
    commands = {f"litserve, {workers} workers": [*litserve, "PORT", str(workers)] for workers in {1, len(cores)}}
    rates: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds):
        names = [OURS, *commands]
        for name in names[number % len(names) :] + names[: number % len(names)]:
            port = free_port()
            own = [part.replace("PORT", str(port)) for part in commands.get(name, ())]
            command = own or [*medreward_command(port), "--model", "medreward-mini", *PATIENCE]
            ready = "/health" if own else "/readyz"
            with serving(command, f"http://127.0.0.1:{port}{ready}", cores, START_SECONDS):
                for responses in GROUPS:
                    rate(port, responses, triples, connections)
                    rates.setdefault((name, responses), []).append(rate(port, responses, triples, connections))
    print(table(rates))
    medians = {f"{name}, {responses}": statistics.median(found) for (name, responses), found in rates.items()}
    print(json.dumps({"benchmark": "bundled", "cores": len(cores), "triples_s": medians}))


def rate(port: int, responses: int, triples: int, connections: int) -> float:
    """Returns triples/s of a burst, for a window of seconds cuts batches off. Fails unless every reply is right."""
    new = Requests(jpegs(IMAGES), responses=responses)
    bodies = [b"".join(new()).partition(b"\r\n\r\n")[2] for _ in range(max(1, triples // responses))]
    started = time.perf_counter()
    replies = asyncio.run(posted(f"http://127.0.0.1:{port}/score", bodies, connections))
    seconds = time.perf_counter() - started
    if not all(map(medreward_check(responses), replies)):
        raise click.ClickException("not every answer was right")
    return len(bodies) * responses / seconds


async def posted(url: str, bodies: Sequence[bytes], connections: int) -> list[bytes]:
    """Returns the bodies of the replies, in order."""
    limits, headers = httpx.Limits(max_connections=connections), {"content-type": "application/json"}
    async with httpx.AsyncClient(limits=limits, headers=headers, timeout=600) as client:
        replies = await asyncio.gather(*(client.post(url, content=body) for body in bodies))
    return [reply.content for reply in replies]


def table(rates: Mapping[tuple[str, int], Sequence[float]]) -> str:
    lines = [
        "| server | answers of a request | triples/s (lowest to highest) | medreward / it |",
        "| --- | --- | --- | --- |",
    ]
    for (name, responses), found in sorted(rates.items(), key=lambda row: -row[0][1]):
        ours = statistics.median(rates[OURS, responses]) / statistics.median(found)
        spread = f"{statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f})"
        lines.append(f"| {name} | {responses} | {spread} | {ours:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
