"""A load generator: one process, one core, keep-alive HTTP/1.1 connections to a server on loopback.

Closed loop: N connections, each sends its next request when the reply to the last one is there.
Open loop: requests are due at a fixed rate whatever the server does; latency counts from the moment a request was due.
"""

import asyncio
import ipaddress
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import cast
from urllib.parse import urlsplit

import click
import httptools
import numpy as np
import uvloop
from loadtest.bodies import Requests, jpegs, medreward_check

Source = Callable[[], Sequence[bytes]]  # the next request, head and body, in as many pieces as is cheap
Check = Callable[[bytes], bool]  # whether the body of a 200 is the right answer

LOST = 0  # the status of a request whose connection broke before the reply
GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    host: str
    port: int
    seconds: float
    warm_up: float = 1.0
    connections: int = 32
    rate: float | None = None  # requests/s; None: closed loop

    def __post_init__(self) -> None:
        if not ipaddress.ip_address(self.host).is_loopback:
            raise ValueError(f"{self.host} is not a loopback address")


@dataclass(frozen=True, slots=True)
class Report:
    """What happened between the end of the warm-up and the end of the run."""

    offered: float | None  # requests/s; None in a closed loop
    achieved: float  # right answers/s
    p50_ms: float
    p90_ms: float
    p99_ms: float
    statuses: dict[int, int]
    wrong: int  # replies with status 200 and the wrong content
    unfinished: int  # open loop: no reply within the grace period; in the percentiles with the time waited so far
    bytes_sent: int
    bytes_received: int
    generator_busy: float | None  # share of its core; None in an open loop, which spins

    @property
    def clean(self) -> bool:
        return set(self.statuses) == {200} and not self.wrong and not self.unfinished


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.parser = httptools.HttpResponseParser(self)
        self.body: list[bytes] = []
        self.due: float | None = None  # of the request that is on its way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, pieces: Sequence[bytes], due: float) -> None:
        self.due = due
        self.transport.writelines(pieces)

    def data_received(self, data: bytes) -> None:
        self.load.received(len(data))
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body.clear()

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        due, self.due = self.due, None
        if due is None:
            return
        self.load.reply(due, self.parser.get_status_code(), b"".join(self.body))
        if self.parser.should_keep_alive():
            self.load.idle(self)
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self.due is not None:
            self.load.reply(self.due, LOST, b"")
        self.load.lost(self)


class Load:
    """The connections, what is due on them, and what came back."""

    def __init__(self, plan: Plan, source: Source, check: Check) -> None:
        self.plan = plan
        self.source = source
        self.check = check
        self.start = self.end = 0.0
        self.connections: set[Connection] = set()
        self.free: deque[Connection] = deque()
        self.backlog: deque[float] = deque()
        self.reconnects: set[asyncio.Task[None]] = set()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.good = self.wrong = self.bytes_sent = self.bytes_received = 0
        self.closing = False

    async def connect(self) -> None:
        make = asyncio.get_running_loop().create_connection(lambda: Connection(self), self.plan.host, self.plan.port)
        _, connection = await asyncio.wait_for(make, 5)
        self.connections.add(connection)
        self.idle(connection)

    def idle(self, connection: Connection) -> None:
        if self.plan.rate is not None:
            if self.backlog:
                self.send(connection, self.backlog.popleft())
            else:
                self.free.append(connection)
        elif (now := time.perf_counter()) < self.end:
            self.send(connection, now)

    def arrive(self, due: float) -> None:
        if self.free:
            self.send(self.free.popleft(), due)
        else:
            self.backlog.append(due)

    def send(self, connection: Connection, due: float) -> None:
        pieces = self.source()
        if self.start <= due < self.end:
            self.bytes_sent += sum(map(len, pieces))
        connection.send(pieces, due)

    def received(self, count: int) -> None:
        if self.start <= time.perf_counter() < self.end:
            self.bytes_received += count

    def reply(self, due: float, status: int, body: bytes) -> None:
        now = time.perf_counter()
        right = status == 200 and self.check(body)
        in_window = self.start <= now < self.end
        self.good += right and in_window
        if in_window if self.plan.rate is None else self.start <= due < self.end:
            self.statuses[status] += 1
            self.wrong += status == 200 and not right
            self.latencies.append(now - due)

    def lost(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if connection in self.free:
            self.free.remove(connection)
        if not self.closing:
            task = asyncio.ensure_future(self.connect())
            self.reconnects.add(task)
            task.add_done_callback(self.reconnected)

    def reconnected(self, task: asyncio.Task[None]) -> None:
        self.reconnects.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self.failure.done():
            self.failure.set_exception(error)

    async def run(self) -> Report:
        begin = time.perf_counter()
        self.start, self.end = begin + self.plan.warm_up, begin + self.plan.warm_up + self.plan.seconds
        for _ in range(self.plan.connections):
            await self.connect()
        busy = await (self.pace_open() if self.plan.rate else self.pace_closed())
        late = await self.drain()
        self.closing = True
        for connection in self.connections:
            connection.transport.close()
        return self.report(busy, late)

    async def pace_closed(self) -> float:
        await self.sleep_until(self.start)
        cpu = time.process_time()
        await self.sleep_until(self.end)
        return (time.process_time() - cpu) / self.plan.seconds

    async def sleep_until(self, moment: float) -> None:
        """Cut short by the failure to connect again."""
        await asyncio.wait([self.failure], timeout=moment - time.perf_counter())
        if self.failure.done():
            self.failure.result()

    async def pace_open(self) -> None:
        assert self.plan.rate
        due, step = time.perf_counter(), 1 / self.plan.rate
        while due < self.end and not self.failure.done():
            # the loop's timers are a millisecond coarse: sleep up to there, spin the rest
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait - 0.002 if wait > 0.003 else 0)
            else:
                self.arrive(due)
                due += step

    async def drain(self) -> list[float]:
        """Waits for what is under way; returns when what never came was due."""
        for _ in range(int(GRACE_SECONDS / 0.01)):
            if not self.under_way():
                break
            await asyncio.sleep(0.01)
        return self.under_way()

    def under_way(self) -> list[float]:
        return [*self.backlog, *(one.due for one in self.connections if one.due is not None)]

    def report(self, busy: float | None, late: list[float]) -> Report:
        unfinished = [due for due in late if self.start <= due < self.end]
        now = time.perf_counter()
        times = self.latencies + [now - due for due in unfinished]
        p50, p90, p99 = (float(x) * 1000 for x in np.percentile(times, (50, 90, 99))) if times else (0.0, 0.0, 0.0)
        return Report(
            offered=self.plan.rate,
            achieved=self.good / self.plan.seconds,
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            statuses=dict(self.statuses),
            wrong=self.wrong,
            unfinished=len(unfinished),
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            generator_busy=busy,
        )


def drive(plan: Plan, source: Source, check: Check) -> Report:
    async def run() -> Report:
        return await Load(plan, source, check).run()

    return uvloop.run(run())


@click.command(help="Loads a MedReward server at URL, such as http://127.0.0.1:8000/score, and prints one JSON line.")
@click.argument("url")
@click.option("--connections", default=32, show_default=True)
@click.option("--rate", type=float, help="Requests a second, open loop; without it, closed loop.")
@click.option("--seconds", default=10.0, show_default=True)
@click.option("--warm-up", default=1.0, show_default=True)
@click.option("--responses", default=1, show_default=True, help="1: single triples; more: groups of that many.")
@click.option("--cold", is_flag=True, help="A never-seen image with every request.")
def main(
    url: str, connections: int, rate: float | None, seconds: float, warm_up: float, responses: int, cold: bool
) -> None:
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    try:
        plan = Plan(host, parts.port or 80, seconds, warm_up, connections, rate)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    requests = Requests(jpegs(), path=parts.path or "/score", responses=responses, cold=cold)
    report = drive(plan, requests, medreward_check(responses))
    print(json.dumps(asdict(report)))
    raise SystemExit(0 if report.clean else 1)


if __name__ == "__main__":
    main()
