"""The bundled model behind our server and behind LitServe, from the same code, in turns: groups and single answers.

Images come again, as they do in training, and both keep them; every response is one that was never sent before.
LitServe runs with one worker on all cores and with a worker a core, and its better rate counts. It comes from the
environment that `make peers` makes. Prints a table of triples/s; the last line is JSON.
"""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.driver import Plan, drive
from loadtest.overhead import parse_cores
from loadtest.servers import ROOT, free_port, medreward_command, serving

GROUPS: Final = (8, 1)
IMAGES: Final = 16
START_SECONDS: Final = 600.0
OURS: Final = "medreward"
PEERS: Final = ROOT / ".venv" / "peers" / "bin" / "python"


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="Of a measurement.")
@click.option("--connections", default=16, show_default=True)
@click.option("--server-cores", default="0,1", show_default=True)
@click.option("--peers-python", type=click.Path(path_type=Path), default=PEERS, help="By default that of `make peers`.")
def main(rounds: int, seconds: float, connections: int, server_cores: str, peers_python: Path) -> None:
    cores = parse_cores(server_cores)
    litserve = [str(peers_python), "-m", "loadtest.peer_bundled"]
    commands = {f"litserve, {workers} workers": [*litserve, "PORT", str(workers)] for workers in {1, len(cores)}}
    rates: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds):
        names = [OURS, *commands]
        for name in names[number % len(names) :] + names[: number % len(names)]:
            port = free_port()
            own = [part.replace("PORT", str(port)) for part in commands.get(name, ())]
            command = own or [*medreward_command(port), "--model", "medreward-mini"]
            ready = "/health" if own else "/readyz"
            with serving(command, f"http://127.0.0.1:{port}{ready}", cores, START_SECONDS):
                for responses in GROUPS:
                    rates.setdefault((name, responses), []).append(rate(port, responses, seconds, connections))
    print(table(rates))
    medians = {f"{name}, {responses}": statistics.median(found) for (name, responses), found in rates.items()}
    print(json.dumps({"benchmark": "bundled", "cores": len(os.sched_getaffinity(0)), "triples_s": medians}))


def rate(port: int, responses: int, seconds: float, connections: int) -> float:
    """Returns triples/s. Fails unless every reply is a right one."""
    plan = Plan("127.0.0.1", port, seconds, connections=connections)
    report = drive(plan, Requests(jpegs(IMAGES), responses=responses), medreward_check(responses))
    if not report.clean:
        raise click.ClickException(f"not every answer was right: {report}")
    return report.achieved * responses


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
