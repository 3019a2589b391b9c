"""Three servers behind nginx, Envoy, or a client that hashes by itself, while one is slowed by ten and one is killed.

A closed loop asks about the same images again and again, with new responses. After a third of the time one server gets
a tenth of its processor time (SIGSTOP and SIGCONT in turns); after two thirds another one is killed. Every score is
compared with that of a server of its own. Prints what reached each server, second by second, and as a last line JSON.

PYTHONPATH=tests:tests/support python -m loadtest.gateway --seconds 24
"""

import asyncio
import json
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import uvloop

from clients.processes import Process
from deploy.gateways import gateway
from medreward.clients import AsyncClient, Patience, Score
from pictures import png

FLAGS = ("--fake-delay-ms=40", "--batch-cost=200")
IMAGES = 48
GROUP = 8
SLICE_S = 0.02  # of which a slowed server runs a tenth


@dataclass
class Run:
    """What one way gave. Rates are triples/s: all three sound, one slowed, and one killed beside it."""

    way: str
    door: str
    sound: float = 0.0
    slowed: float = 0.0
    killed: float = 0.0
    encodes_before: float = 0.0
    images: int = IMAGES
    scores: int = 0
    wrong: int = 0
    unscored: int = 0
    seconds_to_recover: dict[str, float] = field(default_factory=dict)  # until half the rate is there again
    longest_s: float = 0.0


@contextmanager
def slowed_by_ten(server: Process) -> Iterator[None]:
    ended = threading.Event()

    def throttle() -> None:
        while not ended.is_set():
            server.signal(signal.SIGSTOP)
            time.sleep(SLICE_S * 0.9)
            server.signal(signal.SIGCONT)
            time.sleep(SLICE_S * 0.1)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def load(
    client: AsyncClient, servers: Sequence[Process], run: Run, seconds: float, connections: int
) -> list[tuple[str, str, Score]]:
    """Asks for `seconds`, and spoils two servers meanwhile. Returns every question and response with its score."""
    answered: list[tuple[str, str, Score]] = []
    moments: list[float] = []
    began = time.perf_counter()
    number = iter(range(10**9))

    async def ask() -> None:
        while (sent := time.perf_counter()) < began + seconds:
            n = next(number)
            responses = [f"response {n} {k} of {run.way} {run.door}" for k in range(GROUP)]
            scores = await client.score(png(n % IMAGES), f"question {n % IMAGES}", responses)
            moments.extend([time.perf_counter() - began] * GROUP)
            run.longest_s = max(run.longest_s, time.perf_counter() - sent)
            answered.extend(zip([str(n % IMAGES)] * GROUP, responses, scores, strict=True))

    tasks = [asyncio.create_task(ask()) for _ in range(connections)]
    await asyncio.sleep(seconds / 3)
    run.encodes_before = sum(server.count("medreward_image_encodes_total") for server in servers)
    with slowed_by_ten(servers[0]):
        await asyncio.sleep(seconds / 3)
        await asyncio.to_thread(servers[1].kill)
        await asyncio.gather(*tasks)
    run.sound, run.slowed, run.killed = (
        sum(1 for at in moments if part * seconds / 3 < at <= (part + 1) * seconds / 3) / (seconds / 3)
        for part in range(3)
    )
    for part, name in ((1, "slowed"), (2, "killed")):
        run.seconds_to_recover[name] = _recovered(moments, part * seconds / 3, run.sound / 2)
    return answered


def _recovered(moments: list[float], fault: float, rate: float) -> float:
    """Returns after how many seconds a second begins in which that rate is reached."""
    for tenth in range(600):
        at = fault + tenth / 10
        if sum(1 for moment in moments if at < moment <= at + 1) >= rate:
            return tenth / 10
    return float("inf")


async def check(reference: Process, answered: list[tuple[str, str, Score]], run: Run) -> None:
    """Compares each score with that of a server that had no trouble."""
    run.scores = len(answered)
    run.unscored = sum(score.error is not None for _, _, score in answered)
    async with AsyncClient(reference.url("http"), patience=Patience(seconds=300)) as client:
        triples = [(png(int(image)), f"question {image}", response) for image, response, _ in answered]
        right = await client.score_many(triples)
    pairs = zip(answered, right, strict=True)
    run.wrong = sum(score.error is None and score.reward != expected.reward for (_, _, score), expected in pairs)
    run.wrong += len(answered) - len({response for _, response, _ in answered})  # none twice


@click.command(help=__doc__)
@click.option("--seconds", default=24.0, show_default=True)
@click.option("--connections", default=24, show_default=True)
@click.option("--ways", default="client,nginx,envoy", show_default=True)
@click.option("--doors", default="http,grpc", show_default=True)
def main(seconds: float, connections: int, ways: str, doors: str) -> None:
    runs = []
    with tempfile.TemporaryDirectory() as name:
        reference = _started(Path(name), "reference")
        for way in ways.split(","):
            for door in doors.split(","):
                run = Run(way, door)
                servers = [_started(Path(name), f"{way}-{door}-{n}") for n in range(3)]
                ports = [(server.port, server.grpc_port) for server in servers]
                # 1.25 times the calls under way, divided by the servers, as the file says
                bound = round(1.25 * connections / 3)
                front = nullcontext(None) if way == "client" else gateway(way, Path(name), ports, bound)
                with front as at:
                    urls = [server.url(door) for server in servers] if at is None else at.url(door)
                    uvloop.run(measure(urls, servers, reference, run, seconds, connections))
                for server in servers:
                    server.kill()
                runs.append(asdict(run))
                print(json.dumps(runs[-1]), flush=True)
        reference.kill()
    print(json.dumps({"benchmark": "gateway", "runs": runs}))


async def measure(
    urls: str | list[str], servers: list[Process], reference: Process, run: Run, seconds: float, connections: int
) -> None:
    async with AsyncClient(
        urls, affinity=True, concurrency=connections, timeout=60, patience=Patience(seconds=120)
    ) as client:
        answered = await load(client, servers, run, seconds, connections)
    await check(reference, answered, run)


def _started(folder: Path, name: str) -> Process:
    (folder / name).mkdir()
    server = Process(folder / name, FLAGS)
    server.start()
    return server


if __name__ == "__main__":
    main()
