"""What the Python client gets out of a server, beside what the plain load generator gets out of the same one.

`generator` asks as a simple program would: a group of 8 responses a request, the image in it. `same calls` is the
generator with the requests that the client makes: 16 groups each, images by hash. The server has two cores and a model
that costs nothing, so that the client is measured and not the model. Prints a table and, as its last line, JSON.
"""

import asyncio
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence

import click
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.driver import Check, Plan, Source, drive
from loadtest.overhead import parse_cores
from loadtest.servers import free_port, serving

from medreward.clients import AsyncClient, Triple
from medreward.clients.calls import CALL_GROUPS

GROUP = 8
TARGET = 0.9


class SameCalls:
    """Requests such as the client's, about images that the server has."""

    def __init__(self, images: Sequence[bytes]) -> None:
        self.texts = Requests(images)
        self.digests = [hashlib.sha256(image).hexdigest().encode() for image in images]

    def __call__(self) -> tuple[bytes, bytes]:
        body = b'{"items":[' + b",".join(self.item() for _ in range(CALL_GROUPS)) + b"]}"
        return self.texts.head % len(body), body

    def item(self) -> bytes:
        number, image = next(self.texts.numbers), next(self.texts.turns)
        head = b'{"image":{"sha256":"' + self.digests[image] + b'"},"question":"' + self.texts.questions[image]
        responses = b'","'.join(self.texts.response(number, n) for n in range(GROUP))
        return head + b'","responses":["' + responses + b'"]}'


def generator_rate(port: int, source: Source, check: Check, triples_each: int, seconds: float) -> float:
    """Triples/s of the load generator."""
    report = drive(Plan("127.0.0.1", port, seconds), source, check)
    if not report.clean:
        raise click.ClickException(f"the generator had wrong answers: {report.statuses}, {report.wrong}")
    return report.achieved * triples_each


def check_same_calls(body: bytes) -> bool:
    return body.count(b'"status":"ok"') == GROUP * CALL_GROUPS and b'"cached":true' not in body


async def client_rate(url: str, images: Sequence[bytes], seconds: float, batch: int, concurrency: int) -> float:
    """Triples/s of `score_many`, asked for one batch after the other; a first batch, not counted, stores the images."""
    texts = Requests(images)
    asked, spent = 0, 0.0
    async with AsyncClient(url, strict=True, concurrency=concurrency) as client:
        await client.score_many(triples(texts, images, batch))
        while spent < seconds:
            wanted = triples(texts, images, batch)
            started = time.perf_counter()
            scores = await client.score_many(wanted)
            spent += time.perf_counter() - started
            asked += len(scores)
    return asked / spent


def triples(texts: Requests, images: Sequence[bytes], count: int) -> list[Triple]:
    """Responses that no one asked about before."""
    made = []
    for group in range(count // GROUP):
        number, image = next(texts.numbers), group % len(images)
        question = texts.questions[image].decode()
        made += [Triple(images[image], question, texts.response(number, n).decode()) for n in range(GROUP)]
    return made


def print_table(rates: dict[str, list[float]]) -> dict[str, float]:
    """Ratios to the generator, round by round, for a round's rows share the machine's mood."""
    print(f"{'':<12}{'triples/s':>12}{'lowest..highest':>20}{'x generator':>14}{'lowest..highest':>20}")
    ratios = {}
    for name, values in rates.items():
        ratio = [mine / generator for mine, generator in zip(values, rates["generator"], strict=True)]
        ratios[name] = statistics.median(ratio)
        spread = f"{min(values):.0f}..{max(values):.0f}"
        print(
            f"{name:<12}{statistics.median(values):>12.0f}{spread:>20}"
            f"{ratios[name]:>14.2f}{f'{min(ratio):.2f}..{max(ratio):.2f}':>20}"
        )
    return ratios


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=3.0, show_default=True, help="Length of each measurement.")
@click.option("--triples", "batch", default=8192, show_default=True, help="Triples in one call of score_many.")
@click.option("--concurrency", default=16, show_default=True, help="The client's option.")
@click.option("--server-cores", default="0,1", show_default=True)
def main(rounds: int, seconds: float, batch: int, concurrency: int, server_cores: str) -> None:
    cores = parse_cores(server_cores)
    os.sched_setaffinity(0, os.sched_getaffinity(0) - cores)
    images = jpegs()
    rates: dict[str, list[float]] = {"generator": [], "REST": [], "gRPC": [], "same calls": []}
    http, grpc, admin = free_port(), free_port(), free_port()
    ports = ["--port", str(http), "--grpc-port", str(grpc), "--admin-port", str(admin)]
    command = [sys.executable, "-m", "medreward", "serve", "--model", "fake", *ports]
    with serving(command, f"http://127.0.0.1:{http}/readyz", cores):
        for _ in range(rounds):
            one_group = Requests(images, responses=GROUP)
            rates["generator"].append(generator_rate(http, one_group, medreward_check(GROUP), GROUP, seconds))
            for name, url in (("REST", f"http://127.0.0.1:{http}"), ("gRPC", f"grpc://127.0.0.1:{grpc}")):
                rates[name].append(asyncio.run(client_rate(url, images, seconds, batch, concurrency)))
            each = GROUP * CALL_GROUPS
            rates["same calls"].append(generator_rate(http, SameCalls(images), check_same_calls, each, seconds))
    ratios = print_table(rates)
    setup = {"benchmark": "client", "python": platform.python_version(), "cores": os.cpu_count(), "rounds": rounds}
    print(json.dumps({**setup, "seconds": seconds, "batch": batch, "rates": rates, "ratios": ratios}))
    raise SystemExit(0 if min(ratios["REST"], ratios["gRPC"]) >= TARGET else 1)


if __name__ == "__main__":
    main()
