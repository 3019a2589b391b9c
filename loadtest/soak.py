"""A closed loop of images never seen before, in rounds, and what the server holds after each: what grows is a leak."""

import os
from pathlib import Path

import click
import uvloop
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.driver import Load, Plan
from loadtest.servers import free_port, medreward_command, serving

HOST = "127.0.0.1"
SERVER_CORES, OWN_CORES = {0, 1}, {2, 3}
GROWTH = 1.05
FILES_OR_THREADS = 5


def held(pid: int) -> tuple[float, int, int]:
    """Megabytes of its own of the server and its children; files and threads of the server."""
    process = Path(f"/proc/{pid}")
    family = [str(pid), *(process / f"task/{pid}/children").read_text().split()]
    lines = [line for one in family for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()]
    own = sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1000
    return own, len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


async def rate(plan: Plan, source: Requests) -> float:
    """Right answers a second."""
    return (await Load(plan, source, medreward_check(1)).run()).achieved


@click.command(help=__doc__)
@click.option("--rounds", default=10, show_default=True)
@click.option("--seconds", default=6.0, show_default=True, help="Of each round.")
def main(rounds: int, seconds: float) -> None:
    os.sched_setaffinity(0, OWN_CORES)
    port = free_port()
    command = [*medreward_command(port), "--score-cache-bytes", "1000000", "--pixel-cache-bytes", "50000000"]
    source = Requests(jpegs(32), cold=True)
    seen = []
    with serving(command, f"http://{HOST}:{port}/readyz", SERVER_CORES) as pid:
        for n in range(rounds):
            plan = Plan(HOST, port, seconds, 2.0, connections=32)
            achieved = uvloop.run(rate(plan, source))
            seen.append(held(pid))
            memory, files, threads = seen[-1]
            print(f"{n:4} {achieved:8.0f} req/s {memory:8.1f} MB {files:5} files {threads:4} threads", flush=True)
    early, late = seen[min(2, rounds - 1)], seen[-1]  # caches fill up in the first rounds
    grown = late[0] > GROWTH * early[0] or any(
        b > a + FILES_OR_THREADS for a, b in zip(early[1:], late[1:], strict=True)
    )
    raise SystemExit(1 if grown else 0)


if __name__ == "__main__":
    main()
