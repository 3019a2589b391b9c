"""Checks the simulation of a fleet against real servers, and draws the figures of docs/scale.md.

real: 1, 2 and 3 servers of the fake backend, whose batches take a set time, and a client that hashes by itself. The
same flood of groups goes through the simulation. Prints triples/s of both.
draw: what the simulation says of fleets that no machine here can hold, as SVG files in a folder.

python -m loadtest.fleet real --rounds 3
python -m loadtest.fleet draw docs/scale
"""

import asyncio
import hashlib
import json
import statistics
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import click
import matplotlib as mpl
import matplotlib.pyplot as plt
import uvloop
from loadtest.bodies import jpegs
from loadtest.servers import free_port, medreward_command, serving
from matplotlib.figure import Figure

from medreward.clients import AsyncClient
from medreward.scale.autoscaling import Autoscaler
from medreward.scale.simulation import RULES, Device, Fault, Simulation
from medreward.scale.traffic import Ask, Size, screening, together, training
from medreward.types import Lane

GROUP = 8
QUESTION, ANSWER = 10, 20  # words, and so tokens of the fake backend
BATCH_COST = 700  # four groups
FLOOD_S = 1_000.0  # when the simulated flood begins, after each image was asked about once
INK, GREY = "#1f2937", "#9ca3af"
COLOURS = {"round robin": "#9ca3af", "hash": "#d97706", "bounded hash": "#2563eb"}
#: A model of 7.6 thousand million parameters on an H200 at a third of its peak; nobody has measured it.
H200 = Device(fixed_s=0.008, per_token_s=1 / 22_800, images=1_500)
SIZE = Size(image=1024, question=64, answer=256)


@click.group(help=__doc__)
def main() -> None: ...


@main.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--delay-ms", default=800, show_default=True, help="what a batch takes")
@click.option("--groups", default=60, show_default=True, help="for each server")
@click.option("--servers", default="1,2,3", show_default=True)
def real(rounds: int, delay_ms: int, groups: int, servers: str) -> None:
    rows: list[dict[str, object]] = []
    for count in map(int, servers.split(",")):
        turns = [uvloop.run(flood(count, delay_ms, groups * count, turn)) for turn in range(rounds)]
        shares = [turn.simulated / turn.real for turn in turns]
        rows.append({"servers": count, "turns": [asdict(turn) for turn in turns], "simulated / real": shares})
        told = ", ".join(f"{turn.real:.1f} (simulated {turn.simulated:.1f})" for turn in turns)
        print(f"{count} servers: {told} triples/s; simulated / real {statistics.median(shares):.3f}", flush=True)
    print(json.dumps({"benchmark": "fleet", "rows": rows}))


@dataclass(frozen=True)
class Turn:
    """Triples/s of the same flood."""

    real: float
    simulated: float


async def flood(count: int, delay_ms: int, groups: int, turn: int) -> Turn:
    """Asks so many real servers about all groups at once, and the same of simulated ones with the same names."""
    with ExitStack() as started:
        urls = []
        for _ in range(count):
            port = free_port()
            flags = ["--fake-delay-ms", str(delay_ms), "--batch-cost", str(BATCH_COST)]
            command = [*medreward_command(port), *flags, "--deadline-seconds", "600"]
            await asyncio.to_thread(started.enter_context, serving(command, f"http://127.0.0.1:{port}/readyz", {0, 1}))
            urls.append(f"http://127.0.0.1:{port}")
        images = jpegs(groups)
        async with AsyncClient(urls, concurrency=groups, timeout=600) as client:
            question = " ".join(["word"] * QUESTION)
            # So that all images are decoded, which the simulation leaves out.
            await asyncio.gather(*(client.score(image, question, ["first"]) for image in images))
            began = time.perf_counter()
            calls = [client.score(image, question, responses(turn, n)) for n, image in enumerate(images)]
            scores = await asyncio.gather(*calls)
            seconds = time.perf_counter() - began
    assert all(score.error is None for group in scores for score in group)
    return Turn(groups * GROUP / seconds, simulate(urls, delay_ms, images))


def responses(turn: int, group: int) -> list[str]:
    return [" ".join([f"r{turn}g{group}n{n}", *["word"] * (ANSWER - 1)]) for n in range(GROUP)]


def simulate(urls: list[str], delay_ms: int, images: list[bytes]) -> float:
    simulation = Simulation(Device(delay_ms / 1000, 0.0, BATCH_COST), len(urls))
    for replica, url in zip(simulation.replicas, urls, strict=True):
        replica.name = url  # so that images have the same homes
    keys = [hashlib.sha256(image).hexdigest() for image in images]
    first = [Ask(0.0, key, 1, 0, QUESTION, 1) for key in keys]
    outcome = simulation.run([*first, *(Ask(FLOOD_S, key, GROUP, 0, QUESTION, ANSWER) for key in keys)])
    return len(keys) * GROUP / (outcome.seconds - FLOOD_S)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--only", help="one of the figures")
def draw(folder: Path, only: str | None) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    mpl.rcParams.update({"svg.fonttype": "none", "font.size": 11, "svg.hashsalt": "medreward", "text.color": INK})
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY})
    for figure in (replicas, cache, lanes, faults, scaling):
        if only in (None, figure.__name__):
            print(json.dumps({figure.__name__: figure(folder)}), flush=True)


def replicas(folder: Path) -> dict[str, list[float]]:
    """Throughput against replicas, when there is always work."""
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    rates: dict[str, list[float]] = {}
    for rule in RULES:
        for count in counts:
            asks = [Ask(0.0, f"image {n}", GROUP, SIZE.image, SIZE.question, SIZE.answer) for n in range(24 * count)]
            rates.setdefault(rule, []).append(Simulation(H200, count, rule).run(asks).triples_per_second)
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    axes.plot(
        counts,
        [rates["round robin"][0] * count for count in counts],
        color=INK,
        lw=1,
        ls=(0, (4, 3)),
        label="as many times one",
    )
    for name, values in rates.items():
        axes.plot(counts, values, marker="o", ms=4, color=COLOURS[name], label=name)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="replicas",
        ylabel="triples/s",
        title="A flood of 24 groups of 8 for each replica",
    )
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.legend(frameon=False)
    save(figure, folder / "replicas.svg")
    return rates


def cache(folder: Path) -> dict[str, list[float]]:
    """Cache hit rate and p99 against the routing rule, as the training set grows."""
    sets = [500, 1_000, 2_000, 4_000]
    device, count = Device(H200.fixed_s, H200.per_token_s, images=125), 8
    hits: dict[str, list[float]] = {}
    late: dict[str, list[float]] = {}
    for rule in RULES:
        for images in sets:
            rate = 0.6 * count * device.tokens_per_second / SIZE.group(GROUP)
            outcome = Simulation(device, count, rule).run(training(rate, 64, GROUP, SIZE, images, 3 * images / rate))
            hits.setdefault(rule, []).append(100 * outcome.hit_rate)
            late.setdefault(rule, []).append(outcome.p99(Lane.BULK) or 0.0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
    for rule in RULES:
        left.plot(sets, hits[rule], marker="o", ms=4, color=COLOURS[rule], label=rule)
        right.plot(sets, late[rule], marker="o", ms=4, color=COLOURS[rule], label=rule)
    left.set(
        xscale="log",
        xlabel="images of the training set",
        ylabel="found in a cache, %",
        ylim=(-3, 75),
        title="three rounds, so 67% at most",
    )
    right.set(
        xscale="log", xlabel="images of the training set", ylabel="p99 of a group, s", title="the wait, at 60% load"
    )
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xticks(sets, [f"{images:,}" for images in sets])
        axes.minorticks_off()
    left.legend(frameon=False)
    save(figure, folder / "cache.svg")
    return {f"{rule}, {what}": values[rule] for rule in RULES for what, values in (("hits", hits), ("p99", late))}


def lanes(folder: Path) -> dict[str, list[float]]:
    """p99 by lane, against the load that a trainer and a hospital bring together."""
    loads, count = [0.2, 0.4, 0.6, 0.8, 0.9], 16
    p99: dict[str, list[float]] = {"interactive": [], "bulk": []}
    for share in loads:
        rate = share * count * H200.tokens_per_second / SIZE.group(GROUP)
        seconds = 4_000 / rate
        asks = together(
            training(rate, 128, GROUP, SIZE, 20_000, seconds), screening(400_000, SIZE, seconds, start=43_200)
        )
        outcome = Simulation(H200, count).run(asks)
        p99["interactive"].append(outcome.p99(Lane.INTERACTIVE) or 0.0)
        p99["bulk"].append(outcome.p99(Lane.BULK) or 0.0)
    figure, axes = plt.subplots(figsize=(6.4, 3.4))
    percent = [100 * share for share in loads]
    axes.plot(percent, p99["bulk"], marker="o", ms=4, color=GREY, label="trainers' groups (bulk)")
    axes.plot(percent, p99["interactive"], marker="o", ms=4, color="#2563eb", label="screened answers (interactive)")
    axes.set(
        xlabel="load by trainers, % of 16 replicas",
        ylabel="p99, s",
        title="Bursts of 128 groups beside 400,000 screened answers a day",
    )
    axes.legend(frameon=False)
    axes.set_ylim(bottom=0)
    save(figure, folder / "lanes.svg")
    return p99


def faults(folder: Path) -> dict[str, list[float]]:
    """Triples/s while one replica of eight is slowed by ten, and another one dies and comes back."""
    count, end = 8, 120.0
    spoilt = [Fault(0, 30, 90, slower=10.0), Fault(1, 60, 90)]
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    rates: dict[str, list[float]] = {}
    for rule in RULES:
        rate = 0.6 * count * H200.tokens_per_second / SIZE.group(GROUP)
        outcome = Simulation(H200, count, rule, spoilt).run(training(rate, 8, GROUP, SIZE, 20_000, end))
        bins = [0.0] * 60
        for at, triples in outcome.finished:
            if at < end:
                bins[int(at // 2)] += triples / 2
        rates[rule] = [*bins, outcome.p99(Lane.BULK) or 0.0]
        lost = f"{rule}: {outcome.unanswered} lost, p99 {outcome.p99(Lane.BULK) or 0:.1f} s"
        axes.plot([2 * place + 1 for place in range(60)], bins, color=COLOURS[rule], lw=1.6, label=lost)
    axes.axvspan(30, 90, color="#fde68a", alpha=0.5, lw=0)
    axes.axvspan(60, 90, color="#fca5a5", alpha=0.5, lw=0)
    axes.text(31, 30, "one takes ten\ntimes as long", fontsize=9)
    axes.text(61, 30, "another one\nis dead", fontsize=9)
    axes.set(xlabel="seconds", ylabel="triples/s", title="Eight replicas at 60% load")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    save(figure, folder / "faults.svg")
    return {rule: [min(values[15:45]), max(values[:-1]), values[-1]] for rule, values in rates.items()}


def scaling(folder: Path) -> dict[str, int]:
    """Pods over three hours: a quiet one, a busy one in which Prometheus is lost for ten minutes, and a quiet one."""
    device = Device(H200.fixed_s, H200.per_token_s * 10)  # a tenth of the device, so that an hour is soon simulated
    one = device.tokens_per_second / SIZE.group(GROUP)
    hours = [(0, 0.4), (3_600, 4.0), (7_200, 0.4)]
    asks = [
        Ask(start + ask.at, ask.image, GROUP, SIZE.image, SIZE.question, SIZE.answer)
        for start, share in hours
        for ask in training(share * one, max(8, int(60 * share * one)), GROUP, SIZE, 20_000, 3_600, seed=start)
    ]
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    turns = {}
    for down, colour, name in ((0.0, GREY, "without a window"), (600.0, "#2563eb", "the chart: 600 s")):
        scaler = Autoscaler(queue_cost=40_000, least=1, most=12, down_seconds=down)
        outcome = Simulation(device, 1, autoscaler=scaler, blind=(5_400, 6_000)).run(asks)
        turns[name] = outcome.turns
        steps = [*outcome.pods, (10_800.0, outcome.pods[-1][1])]
        label = f"{name}: {outcome.turns} turns"
        axes.step(
            [at / 60 for at, _ in steps], [pods for _, pods in steps], where="post", color=colour, lw=1.4, label=label
        )
        assert outcome.unanswered == 0
        blind = [count for at, count in outcome.pods if 5_400 <= at < 6_000]
        assert all(after >= before for before, after in pairwise(blind))
    axes.axvspan(90, 100, color="#fca5a5", alpha=0.5, lw=0)
    axes.text(90.5, 0.3, "no metrics", fontsize=9)
    axes.set(xlabel="minutes", ylabel="pods", title="Bursts every minute; the second hour brings ten times the work")
    axes.set_ylim(0, 13)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    save(figure, folder / "scaling.svg")
    return turns


def save(figure: Figure, file: Path) -> None:
    figure.savefig(file, metadata={"Date": None}, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    file.write_text("\n".join(line.rstrip() for line in file.read_text().splitlines()) + "\n")


if __name__ == "__main__":
    main()
