"""Our server beside vLLM's, and plain transformers: one Qwen2.5-VL classifier of six labels with random weights.

Rows take turns. In each round each row gets triples that no server has seen, and the median of the rounds counts.
"group" sends the answers to one image and question in one request, "singles" one answer a request; vLLM gets one
conversation a call, as its API has it, and runs with and without its prefix cache; "on vllm" is our server with
`--backend vllm`. "plain" is transformers alone, in padded batches. Before the rounds all rows score the same triples:
"off" is the largest difference of a logit from plain transformers in fp32, in spreads, and "turned" the share of pairs
of answers that it puts into another order. Memory is the proportional set size of all processes of a server.

vLLM comes from the environment that `make peers` makes. Servers listen on loopback alone, and end with this program.
The last line is JSON.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from loadtest.classifier import SHAPES, asked, write_folders
from loadtest.contenders import GROUP, ON_VLLM, PLAIN, SINGLES, VLLM, VLLM_NO_PREFIX, Contender, starting
from loadtest.servers import ROOT
from numpy.typing import NDArray

ROWS: Final = (GROUP, SINGLES, VLLM, VLLM_NO_PREFIX, ON_VLLM, PLAIN)
PEERS: Final = ROOT / ".venv" / "peers" / "bin" / "python"
OURS: Final = (GROUP, SINGLES)

Logits = NDArray[np.float64]  # group, answer, dimension


@dataclass
class Cell:
    """What was measured of one size. Rates are triples/s: median, lowest, highest."""

    image_tokens: int
    answer: int
    n: int
    dtype: str
    rates: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    off: dict[str, float] = field(default_factory=dict)
    turned: dict[str, float] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The best of ours over vLLM, or None where one of them did not run."""
        ours = [self.rates[row][0] for row in OURS if row in self.rates]
        return max(ours) / self.rates[VLLM][0] if ours and VLLM in self.rates else None


@click.command(help=__doc__)
@click.option("--image-tokens", multiple=True, type=int, default=(256, 1024), show_default=True)
@click.option("--answer", multiple=True, type=int, default=(32, 256), show_default=True, help="Tokens of an answer.")
@click.option(
    "--n", "sizes", multiple=True, type=int, default=(1, 8, 16), show_default=True, help="Answers of a group."
)
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(["fp32", "bf16"]), default=("fp32", "bf16"))
@click.option("--shape", type=click.Choice([*SHAPES]), default="small", show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--triples", default=32, show_default=True, help="Of a round, for each row.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--connections", default=16, show_default=True)
@click.option(
    "--kv-gib", default=4, show_default=True, help="Room for vLLM's states; its default is too small for 1024."
)
@click.option("--only", multiple=True, type=click.Choice(ROWS), default=ROWS, show_default=True)
@click.option("--peers-python", type=click.Path(path_type=Path), default=PEERS, help="By default that of `make peers`.")
def main(
    image_tokens: Sequence[int],
    answer: Sequence[int],
    sizes: Sequence[int],
    dtypes: Sequence[str],
    shape: str,
    device: str,
    triples: int,
    rounds: int,
    connections: int,
    kv_gib: int,
    only: Sequence[str],
    peers_python: Path,
) -> None:
    rows = tuple(row for row in ROWS if row in only or row == PLAIN)  # plain is the reference
    cells: list[Cell] = []
    for tokens, dtype in product(image_tokens, sorted(dtypes, reverse=True)):
        with tempfile.TemporaryDirectory() as name:
            folders = Path(name) / "ours", Path(name) / "vllm"
            write_folders(*folders, shape, tokens)
            with starting(rows, folders, dtype, device, connections, kv_gib, peers_python) as contenders:
                for words, n in product(answer, sizes):
                    cell = Cell(tokens, words, n, dtype)
                    compare(cell, contenders)
                    measure(cell, contenders, max(1, triples // n), rounds)
                    cells.append(cell)
                    print(lines(cell), flush=True)
    print(json.dumps({"benchmark": "vllm", "shape": shape, "device": device, "cells": [asdict(c) for c in cells]}))


def compare(cell: Cell, contenders: Sequence[Contender]) -> None:
    """Lets all score the same triples, which warms them up too, and notes how far each is from plain fp32."""
    same = asked((cell.image_tokens, cell.answer, cell.n), 4, max(4, cell.n), cell.image_tokens, cell.answer)
    logits = {one.name: one.logits(same) for one in contenders}
    plain = next(one for one in contenders if one.name == PLAIN)
    exact = plain.logits(same, fp32=True)
    spread = float(np.sqrt(exact.var(1).mean()))
    for name, theirs in logits.items():
        cell.off[name] = float(np.abs(theirs - exact).max()) / spread
        cell.turned[name] = turned(theirs, exact)


def measure(cell: Cell, contenders: Sequence[Contender], groups: int, rounds: int) -> None:
    rates: dict[str, list[float]] = {one.name: [] for one in contenders}
    for number in range(rounds):
        first = number % len(contenders)
        order = [*contenders[first:], *contenders[:first]]
        for place, one in enumerate(order):
            new = asked((time.time_ns(), place), groups, cell.n, cell.image_tokens, cell.answer)
            started = time.perf_counter()
            one.logits(new)
            rates[one.name].append(groups * cell.n / (time.perf_counter() - started))
    cell.rates = {name: (statistics.median(each), min(each), max(each)) for name, each in rates.items()}
    cell.memory_mib = {one.name: one.memory_mib() for one in contenders}


def turned(ours: Logits, exact: Logits) -> float:
    """Returns the share of pairs of answers of a group that stand in another order, over all dimensions."""
    first, second = np.triu_indices(exact.shape[1], 1)
    orders = [np.sign(logits[:, first] - logits[:, second]) for logits in (ours, exact)]
    return float((orders[0] != orders[1]).mean())


def lines(cell: Cell) -> str:
    """Returns the cell as text, a row of the table for each contender."""
    ratio = f", best of ours / vLLM {cell.ratio:.2f}" if cell.ratio else ""
    title = f"\n{cell.image_tokens} image tokens, {cell.answer} of an answer, n {cell.n}, {cell.dtype}{ratio}"
    rows: list[Any] = [title, "| row | triples/s (lowest to highest) | off, spreads | turned | MiB |"]
    rows.append("| --- | ---: | ---: | ---: | ---: |")
    for name, (median, low, high) in cell.rates.items():
        speed = f"{median:.2f} ({low:.2f} to {high:.2f})"
        beside = f"{cell.off[name]:.1e} | {cell.turned[name]:.2%} | {cell.memory_mib[name]:.0f}"
        rows.append(f"| {name} | {speed} | {beside} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
