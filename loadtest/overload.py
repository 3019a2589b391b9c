"""Ten times more bulk work than the server can do, beside people who wait: what gets through, how fast, and after.

The fake backend takes a fixed time for a batch, so that the device is the limit and not this generator.
"""

import asyncio
import io
import itertools
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import httpx
import uvloop
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.driver import Connection, Load, Plan, Report
from loadtest.servers import free_port, medreward_command, serving
from PIL import Image

HOST = "127.0.0.1"
BATCH_MS = 100
SERVER_CORES, OWN_CORES = {0, 1}, {2, 3}
FLAGS = {
    "--fake-delay-ms": BATCH_MS,
    "--queue-cost": 60_000,  # some 2 s of work
    "--score-cache-bytes": 0,
    "--log-level": "error",
}


@dataclass(frozen=True)
class Outcome:
    peak: float  # right answers/s in a closed loop
    offered: float
    goodput: float  # right answers/s of both lanes in the overload
    goodput_of_peak: float
    bulk: Report
    interactive_idle: Report
    interactive: Report
    shed_share: float  # of the bulk requests
    shed: int
    shed_with_retry_after: int
    memory_mb_before: float
    memory_mb_early: float  # highest in the flood's second fifth, when its queue and connections are there
    memory_mb_late: float  # highest in its last fifth
    memory_mb_after: float
    seconds_to_normal: float

    def missed(self) -> list[str]:
        """Which targets."""
        allowed_ms = 2 * self.interactive_idle.p99_ms + BATCH_MS
        met = {
            "goodput at least 80% of peak": self.goodput_of_peak >= 0.8,
            f"interactive p99 within {allowed_ms:.0f} ms": self.interactive.p99_ms <= allowed_ms,
            "every interactive request answered": self.interactive.clean,
            "every shed reply has Retry-After": self.shed == self.shed_with_retry_after,
            "memory flat in the flood (5%)": self.memory_mb_late <= 1.05 * self.memory_mb_early,
            "normal again within 10 s": self.seconds_to_normal <= 10,
        }
        return [target for target, is_met in met.items() if not is_met]


class Counting(Connection):
    """Knows which refusals said when to come back."""

    load: "Flood"
    has_hint = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.has_hint |= name.lower() == b"retry-after" and value.isdigit()

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() in {429, 503}:
            self.load.shed += 1
            self.load.shed_with_hint += self.has_hint
        self.has_hint = False
        super().on_message_complete()


class Flood(Load):
    shed = shed_with_hint = 0

    async def connect(self) -> None:
        make = asyncio.get_running_loop().create_connection(lambda: Counting(self), self.plan.host, self.plan.port)
        _, connection = await asyncio.wait_for(make, 5)
        self.connections.add(connection)
        self.idle(connection)


def thumbnails(count: int) -> list[bytes]:
    """Of one colour each."""
    made = []
    for n in range(count):
        file = io.BytesIO()
        Image.new("RGB", (64, 64), (8 * n, 128, 128)).save(file, "JPEG")
        made.append(file.getvalue())
    return made


def requests(lane: str, images: list[bytes], seed: int) -> Requests:
    made = Requests(images, seed=seed)
    made.numbers = itertools.count(seed * 10**14)  # 16 digits, in no other lane
    made.head = made.head.replace(b"Host:", b"X-Lane: %s\r\nHost:" % lane.encode())
    return made


class Trial:
    def __init__(self, port: int, admin_port: int, pid: int, small: bool) -> None:
        self.port = port
        self.admin = f"http://{HOST}:{admin_port}/admin/state"
        self.pid = pid
        images = thumbnails(32) if small else jpegs(32)
        self.bulk, self.interactive = requests("bulk", images, 11), requests("interactive", images, 12)

    def load(self, source: Requests, seconds: float, connections: int, rate: float | None = None) -> Flood:
        plan = Plan(HOST, self.port, seconds, 2.0, connections, rate)
        return Flood(plan, source, medreward_check(1))

    async def run(self, seconds: float, times: float, interactive_rate: float) -> Outcome:
        idle = await self.load(self.interactive, 10, 32, interactive_rate).run()
        peak = (await self.load(self.bulk, 8, 256).run()).achieved
        before = self.memory_mb()
        watching = asyncio.create_task(self.watch_memory(seconds))
        flood = self.load(self.bulk, seconds, 1500, times * peak)
        people = self.load(self.interactive, seconds, 64, interactive_rate)
        bulk, interactive = await asyncio.gather(self.flooded(flood), people.run())
        goodput = bulk.achieved + interactive.achieved
        memory = await watching
        fifth = len(memory) // 5
        return Outcome(
            peak=peak,
            offered=times * peak + interactive_rate,
            goodput=goodput,
            goodput_of_peak=goodput / peak,
            bulk=bulk,
            interactive_idle=idle,
            interactive=interactive,
            shed_share=sum(n for status, n in bulk.statuses.items() if status != 200) / sum(bulk.statuses.values()),
            shed=flood.shed,
            shed_with_retry_after=flood.shed_with_hint,
            memory_mb_before=before,
            memory_mb_early=max(memory[fifth : 2 * fifth]),
            memory_mb_late=max(memory[-fifth:]),
            memory_mb_after=self.memory_mb(),
            seconds_to_normal=self.normal - self.flood_ended,
        )

    async def flooded(self, flood: Flood) -> Report:
        watching = asyncio.create_task(self.watch_for_normal(flood))
        report = await flood.run()
        await watching
        return report

    async def watch_for_normal(self, flood: Flood) -> None:
        """Normal: nothing waits any more, and a bulk request is answered in the time of two batches."""
        await asyncio.sleep(0.1)  # it knows its end as soon as it runs
        await flood.sleep_until(flood.end)
        self.flood_ended = time.perf_counter()
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{self.port}", timeout=10) as client:
            for n in range(1000):
                started = time.perf_counter()
                body = {"question": "Normal again?", "response": f"Answer {n}."}
                reply = await client.post("/score", json=body)
                self.normal = time.perf_counter()
                state = (await client.get(self.admin)).json()
                quick = self.normal - started < 2.5 * BATCH_MS / 1000
                if reply.status_code == 200 and quick and not state["triples_waiting"]:
                    return
                await asyncio.sleep(0.05)

    def memory_mb(self) -> float:
        """Of the server and its children; what they share is counted once."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        lines = [Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() for pid in [str(self.pid), *children]]
        return sum(int(line.split()[1]) for of in lines for line in of if line.startswith("Pss:")) / 1000

    async def watch_memory(self, seconds: float) -> list[float]:
        end, seen = time.perf_counter() + seconds, []
        while time.perf_counter() < end:
            seen.append(self.memory_mb())
            await asyncio.sleep(0.2)
        return seen


def show(outcome: Outcome) -> None:
    idle, hurried, bulk = outcome.interactive_idle, outcome.interactive, outcome.bulk
    print(f"peak                 {outcome.peak:8.0f} /s")
    print(f"offered              {outcome.offered:8.0f} /s   ({outcome.offered / outcome.peak:.1f} x)")
    print(f"goodput              {outcome.goodput:8.0f} /s   ({outcome.goodput_of_peak:.0%} of peak)")
    print(f"interactive idle     {idle.p50_ms:8.0f} ms p50 {idle.p99_ms:8.0f} ms p99   {idle.statuses}")
    print(f"interactive overload {hurried.p50_ms:8.0f} ms p50 {hurried.p99_ms:8.0f} ms p99   {hurried.statuses}")
    print(f"bulk overload        {bulk.p50_ms:8.0f} ms p50 {bulk.p99_ms:8.0f} ms p99   {bulk.statuses}")
    print(f"bulk unfinished      {bulk.unfinished:8d}, lost or refused {outcome.shed_share:.1%}")
    print(f"shed                 {outcome.shed:8d}, of them with Retry-After {outcome.shed_with_retry_after}")
    early, late = outcome.memory_mb_early, outcome.memory_mb_late
    print(f"memory               {outcome.memory_mb_before:8.0f} MB before, {early:.0f} early in the flood, ", end="")
    print(f"{late:.0f} late, {outcome.memory_mb_after:.0f} after")
    print(f"normal again after   {outcome.seconds_to_normal:8.1f} s")


@click.command(help=__doc__)
@click.option("--seconds", default=30.0, show_default=True)
@click.option("--times", default=10.0, show_default=True, help="Offered bulk work, in peaks.")
@click.option("--interactive-rate", default=5.0, show_default=True, help="Requests a second.")
@click.option("--batch-cost", default=3072, show_default=True, help="Some 96 a request.")
@click.option("--small", is_flag=True, help="Images of 1 KB instead of 60 KB: what the bytes cost is seen apart.")
def main(seconds: float, times: float, interactive_rate: float, batch_cost: int, small: bool) -> None:
    os.sched_setaffinity(0, OWN_CORES)
    port = free_port()
    command = medreward_command(port)
    admin_port = int(command[command.index("--admin-port") + 1])
    flags = [word for name, value in {**FLAGS, "--batch-cost": batch_cost}.items() for word in (name, str(value))]
    with serving([*command, *flags], f"http://{HOST}:{port}/readyz", SERVER_CORES) as pid:
        outcome = uvloop.run(Trial(port, admin_port, pid, small).run(seconds, times, interactive_rate))
    show(outcome)
    missed = outcome.missed()
    print(json.dumps({**asdict(outcome), "missed": missed}))
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
