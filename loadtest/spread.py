"""A VLM in one process beside the same spread over several: triples/s and memory, with as many threads in all.

On a CPU: what ranks cost there, and how they share memory. DIR is a folder that serves, such as
`python -m loadtest.vlm --save DIR --shape small --image-tokens 256` makes one. Prints a line of JSON for each.
"""

import argparse
import json
import os
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from loadtest.vlm import IMAGE, QUESTION, WORDS, side_of

from medreward.artifacts.manifest import read_manifest
from medreward.artifacts.repository import MANIFEST_FILE
from medreward.backends.base import Group, ModelImage
from medreward.settings import Settings
from medreward.workers.device.spread import Spread


@dataclass
class Found:
    ranks: int
    triples_s: float
    cpu_ms: float  # of all processes, a triple
    peak_mib: list[float]  # of each process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="in turns; the median counts")
    parser.add_argument("--groups", type=int, default=8, help="in a round")
    parser.add_argument("--responses", type=int, default=8, help="in a group")
    parser.add_argument("--image-tokens", type=int, default=256, help="of the folder's images")
    parser.add_argument("--answer", type=int, default=32, help="tokens")
    args = parser.parse_args()
    spreads = {ranks: opened(args.folder, ranks, args.ranks // ranks) for ranks in (1, args.ranks)}
    seconds: dict[int, list[float]] = {ranks: [] for ranks in spreads}
    worked = dict.fromkeys(spreads, 0.0)
    rng = np.random.default_rng(0)
    for _ in range(args.rounds + 1):
        groups = [new_group(rng, args) for _ in range(args.groups)]
        for ranks, spread in spreads.items():
            began, before = time.perf_counter(), cpu_seconds(spread.pids)
            spread.score(groups)
            seconds[ranks].append(time.perf_counter() - began)
            worked[ranks] += cpu_seconds(spread.pids) - before
    triples = args.groups * args.responses
    for ranks, spread in spreads.items():
        peaks = [peak_mib(pid) for pid in spread.pids]
        cpu_ms = 1000 * worked[ranks] / len(seconds[ranks]) / triples
        found = Found(ranks, triples / statistics.median(seconds[ranks][1:]), cpu_ms, peaks)
        print(json.dumps(asdict(found)))
        spread.close()


def opened(folder: Path, ranks: int, threads: int) -> Spread:
    settings = Settings(device="cpu", threads=threads, tensor_parallel=ranks, log_level="debug")
    spread = Spread(settings, read_manifest(folder / MANIFEST_FILE), folder)
    spread.warm_up()
    return spread


def new_group(rng: np.random.Generator, args: argparse.Namespace) -> Group:
    side = side_of(args.image_tokens)
    image = ModelImage(rng.bytes(16).hex(), rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    answers = [[int(i) for i in rng.integers(*WORDS, args.answer)] for _ in range(args.responses)]
    return Group(image, [IMAGE, *map(int, rng.integers(*WORDS, QUESTION))], answers)


def cpu_seconds(pids: Sequence[int]) -> float:
    times = [Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in times) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(peak[1]) / 1024 if peak else 0.0


if __name__ == "__main__":
    main()
