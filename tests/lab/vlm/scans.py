"""Rows about drawn scans of chest and brain, in which the image alone tells which claim is true."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from medreward.lab.phantoms.benchmark import png
from medreward.lab.phantoms.draw import draw, imagine
from medreward.types import DIMENSIONS

QUESTION = "What kind of image is this?"
CLAIMS = {"chest": "It is a radiograph.", "brain": "It is MR."}
#: What an answer has more where it is the better one on a dimension.
MORE = {
    "relevance": ("", "Please see a doctor."),
    "comprehensiveness": ("The whole of the region is shown.", ""),
    "creativity": ("Another projection would tell more.", ""),
    "responsiveness": ("", "Hard to say, opinions will differ."),
}


def write_scans(folder: Path, count: int, side: int, held_out: bool = False) -> Path:
    """Writes two pairs about each scan, with labels on all dimensions, and returns the file of rows.

    The findings are of families to learn from or, `held_out`, of the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(0)
    rows = []
    seeds = {organ: (s for s in itertools.count() if imagine(s, organ).held_out is held_out) for organ in CLAIMS}
    for organ in itertools.islice(itertools.cycle(CLAIMS), count):
        seed = next(seeds[organ])
        name = f"{organ}-{seed}.png"
        (folder / name).write_bytes(png(draw(seed, organ, size=side)))
        rows += [{"image": name, "organ": organ, **_pair(organ, dice)} for _ in range(2)]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def _pair(organ: str, dice: Any) -> dict[str, Any]:
    wins = dict(zip(DIMENSIONS, dice.integers(0, 2, 6).tolist(), strict=True))
    wins["overall"] = wins["accuracy"]
    right, wrong = CLAIMS[organ], next(claim for other, claim in CLAIMS.items() if other != organ)
    said = [[right if wins["accuracy"] else wrong], [wrong if wins["accuracy"] else right]]
    for name, (better, worse) in MORE.items():
        said[0].append(better if wins[name] else worse)
        said[1].append(worse if wins[name] else better)
    labels = {name: "A" if won else "B" for name, won in wins.items()}
    answers = [" ".join(part for part in parts if part) for parts in said]
    return {"question": QUESTION, "answers": answers, "labels": labels, "evidence": "constructed"}
