"""The service on Ray Serve: replicas against throughput, what Ray costs in front, and what a client sees of changes.

It runs in an environment with Ray (`make ray`), starts a cluster of its own on loopback and ends it:
`.venv/ray/bin/python -m loadtest.ray_serve`. Prints tables and, as its last line, JSON.
"""

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import click

os.environ.setdefault("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-affinity-key")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # the cluster listens on loopback alone

import ray  # it reads its variables when it is imported
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.driver import Plan, Report, drive
from loadtest.servers import free_port, medreward_command, serving
from ray import serve

from medreward.clients import AsyncClient, Patience
from medreward.scale.serve_app import build

NAME = "medreward"
FAKE = {"model": "fake", "isolation": "inline", "drift": "off", "score_cache_bytes": 0}
#: A device that takes 200 ms for a batch of up to four such triples: replicas, not this machine's cores, are the limit.
SLOW = {"fake_delay_ms": 200, "batch_cost": 400}
READY_S = 900.0


class Cluster:
    """One Ray node of this machine."""

    def __init__(self, folder: str) -> None:
        self.port = free_port()
        ray.init(
            address="local",
            num_cpus=64,  # replicas share this machine's cores
            include_dashboard=False,
            object_store_memory=100_000_000,
            log_to_driver=False,
            _temp_dir=folder,
        )
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": self.port})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def deploy(self, replicas: int, **settings: Any) -> None:
        """Serves with so many replicas; returns when they run and no other does."""
        application = build(
            {"model": "fake", "isolation": "inline", "drift": "off", "score_cache_bytes": 0, **settings}
        )
        options = {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0.1}}
        bound = application._bound_deployment
        serve.run(bound.options(**options).bind(*bound.init_args), name=NAME, route_prefix="/")
        end = time.monotonic() + READY_S
        while self.states() != {"RUNNING": replicas}:
            if time.monotonic() > end:
                raise click.ClickException(f"not {replicas} replicas: {self.states()}")
            time.sleep(0.2)

    def states(self) -> dict[str, int]:
        return {str(k): v for k, v in serve.status().applications[NAME].deployments[NAME].replica_states.items()}

    def kill_one(self) -> None:
        actors = [one for one in ray.util.list_named_actors(all_namespaces=True) if f"#{NAME}#" in one["name"]]
        one = random.choice(actors)
        ray.kill(ray.get_actor(one["name"], namespace=one["namespace"]), no_restart=True)


@dataclass
class Seen:
    """What clients saw while something changed."""

    asked: int = 0
    wrong: int = 0
    lost: int = 0


def load(port: int, seconds: float, connections: int) -> Report:
    return drive(Plan("127.0.0.1", port, seconds, connections=connections), Requests(jpegs(16)), medreward_check(1))


def bare(seconds: float, connections: int) -> tuple[Report, Report]:
    """The same service without Ray in front, loaded and alone."""
    port = free_port()
    flags = [*medreward_command(port)[1:], "--isolation", "inline", "--score-cache-bytes", "0"]
    command = [sys.executable, "-m", "medreward", *flags]  # no command lies in this environment's bin
    with serving(command, f"http://127.0.0.1:{port}/readyz", os.sched_getaffinity(0)):
        return load(port, seconds, connections), load(port, seconds, 1)


async def watch(url: str, change: Callable[[], None], clients: int = 4) -> Seen:
    """Asks on and on, with the client as it is, until the change is over."""
    seen, over = Seen(), asyncio.Event()
    expected: dict[int, float | None] = {}

    async def ask(client: AsyncClient) -> None:
        while not over.is_set():
            number = random.randrange(64)
            (score,) = await client.score(None, "What is shown?", [f"Reading {number}."])
            seen.asked += 1
            seen.lost += score.error is not None
            if not score.error:
                seen.wrong += expected.setdefault(number, score.reward) != score.reward

    async with AsyncClient(url, affinity=True, patience=Patience(300), timeout=300) as client:
        asking = [asyncio.create_task(ask(client)) for _ in range(clients)]
        await asyncio.to_thread(change)
        over.set()
        await asyncio.gather(*asking)
    return seen


def events(cluster: Cluster, number: int) -> Seen:
    """Scales out and in by turns under load."""

    def change() -> None:
        for n in range(number):
            cluster.deploy(1 if n % 2 else 3)

    return asyncio.run(watch(cluster.url, change))


def kills(cluster: Cluster, number: int) -> Seen:
    def change() -> None:
        for _ in range(number):
            cluster.kill_one()
            time.sleep(1)
            while cluster.states() != {"RUNNING": 3}:
                time.sleep(0.2)

    return asyncio.run(watch(cluster.url, change))


@click.command(help=__doc__)
@click.option("--seconds", default=10.0, show_default=True, help="Length of each measurement.")
@click.option("--connections", default=32, show_default=True)
@click.option("--scale-events", default=20, show_default=True)
@click.option("--kill", "killed", default=3, show_default=True, help="Replicas that are killed under load.")
def main(seconds: float, connections: int, scale_events: int, killed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # sockets' paths are short
        cluster = Cluster(folder)
        try:
            figures = measure(cluster, seconds, connections)
            figures["scale events"] = asdict(events(cluster, scale_events))
            cluster.deploy(3)
            figures["kills"] = asdict(kills(cluster, killed))
            print(f"scale events: {figures['scale events']}\nkills: {figures['kills']}")
        finally:
            serve.shutdown()
            ray.shutdown()
    print(json.dumps({"benchmark": "ray_serve", "seconds": seconds, "connections": connections, **figures}))


def measure(cluster: Cluster, seconds: float, connections: int) -> dict[str, Any]:
    reports: dict[str, Report] = {}
    cluster.deploy(1)
    reports["ray, 1 replica"] = load(cluster.port, seconds, connections)
    reports["ray, alone"] = load(cluster.port, seconds, 1)
    reports["bare"], reports["bare, alone"] = bare(seconds, connections)
    for replicas in (1, 2, 3):
        cluster.deploy(replicas, **SLOW)
        reports[f"{replicas} slow replicas"] = load(cluster.port, seconds, connections)
    print(f"{'':<18}{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}  statuses")
    for name, report in reports.items():
        print(f"{name:<18}{report.achieved:>9.1f}{report.p50_ms:>9.1f}{report.p99_ms:>9.1f}  {report.statuses}")
    return {name: asdict(report) for name, report in reports.items()}


if __name__ == "__main__":
    main()
