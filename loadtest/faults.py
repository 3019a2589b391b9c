"""Kills and stops the processes of a loaded server, again and again, and tells what each time cost."""

import asyncio
import json
import os
import random
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click
import httpx
import uvloop
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.driver import Load, Plan, Report
from loadtest.servers import free_port, medreward_command, serving

HOST = "127.0.0.1"
SERVER_CORES, OWN_CORES = {0, 1}, {2, 3}
FLAGS = {
    "--fake-delay-ms": 50,
    "--batch-cost": 3_072,
    "--score-cache-bytes": 0,
    "--decode-seconds": 3,
    "--log-level": "error",
}
FAULTS: dict[str, tuple[Literal["worker", "decoder"], signal.Signals]] = {
    "worker killed": ("worker", signal.SIGKILL),
    "worker stopped": ("worker", signal.SIGSTOP),
    "decoder killed": ("decoder", signal.SIGKILL),
    "decoder stopped": ("decoder", signal.SIGSTOP),
}
SLOT_SECONDS = 8.0  # for a fault and its recovery
RECOVERY_SECONDS = 5.0  # the longest allowed
EXPLICIT = {200, 429, 503, 504}  # a right score, or: try again

Recoveries = dict[str, list[float]]


class Trial:
    def __init__(self, port: int, admin_port: int, pid: int) -> None:
        self.port = port
        self.admin = f"http://{HOST}:{admin_port}/admin/state"
        self.pid = pid
        self.random = random.Random(5)

    async def run(self, rounds: int, connections: int) -> tuple[Recoveries, Report]:
        """Every request has an image that was never seen, so that decoders are as busy as the worker."""
        slots = list(FAULTS) * rounds
        plan = Plan(HOST, self.port, SLOT_SECONDS * len(slots), 2, connections)
        load = asyncio.create_task(Load(plan, Requests(jpegs(), cold=True), medreward_check(1)).run())
        await asyncio.sleep(plan.warm_up + 1)
        recoveries: Recoveries = {name: [] for name in FAULTS}
        async with httpx.AsyncClient(timeout=5) as client:
            for name in slots:
                next_slot = time.perf_counter() + SLOT_SECONDS
                recoveries[name].append(await self.recovery(client, *FAULTS[name]))
                await asyncio.sleep(max(0, next_slot - time.perf_counter() - 0.1))
        return recoveries, await load

    async def recovery(self, client: httpx.AsyncClient, kind: str, how: signal.Signals) -> float:
        """Seconds until another process does the work; infinite where none does within the slot."""
        family, worker = self.children(), await self.worker(client)
        hurt = worker if kind == "worker" else self.random.choice(sorted(family - {worker}))
        os.kill(hurt, how)
        started = time.perf_counter()
        while (seconds := time.perf_counter() - started) < SLOT_SECONDS - 1:
            now = self.children()
            if hurt not in now and len(now) == len(family) and await self.is_ready(client):
                return seconds
            await asyncio.sleep(0.01)
        return float("inf")

    def children(self) -> set[int]:
        return set(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))

    async def worker(self, client: httpx.AsyncClient) -> int:
        return int((await client.get(self.admin)).json()["workers"][0]["pid"])

    async def is_ready(self, client: httpx.AsyncClient) -> bool:
        return bool((await client.get(self.admin)).json()["ready"])


def show(recoveries: Recoveries, load: Report) -> None:
    print(f"{'fault':16} {'times':>5} {'fastest s':>10} {'slowest s':>10}")
    for name, seconds in recoveries.items():
        print(f"{name:16} {len(seconds):5} {min(seconds):10.2f} {max(seconds):10.2f}")
    print(f"requests: {load.statuses} by status, {load.wrong} wrong, {load.unfinished} unanswered")
    print(f"{load.achieved:.0f} right answers/s, p50 {load.p50_ms:.0f} ms, p99 {load.p99_ms:.0f} ms")


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True, help="Times that each fault happens.")
@click.option("--connections", default=200, show_default=True)
def main(rounds: int, connections: int) -> None:
    os.sched_setaffinity(0, OWN_CORES)
    port = free_port()
    command = medreward_command(port)
    admin_port = int(command[command.index("--admin-port") + 1])
    flags = [word for name, value in FLAGS.items() for word in (name, str(value))]
    with serving([*command, *flags], f"http://{HOST}:{port}/readyz", SERVER_CORES) as pid:
        recoveries, load = uvloop.run(Trial(port, admin_port, pid).run(rounds, connections))
    show(recoveries, load)
    print(json.dumps({"recoveries": recoveries, "load": asdict(load)}))
    slowest = max(seconds for all_ in recoveries.values() for seconds in all_)
    explicit = set(load.statuses) <= EXPLICIT and not load.wrong and not load.unfinished
    raise SystemExit(0 if explicit and slowest <= RECOVERY_SECONDS else 1)


if __name__ == "__main__":
    main()
