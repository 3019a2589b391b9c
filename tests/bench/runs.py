"""Finished runs, made for a test."""

import random
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path

from medreward.bench.cases import Case, DataSet
from medreward.bench.chooser import Prediction, by_logits, unanswered
from medreward.bench.rundir import Identity, RunDirectory
from medreward.bench.tables import summarise
from medreward.types import DIMENSIONS


def make_run(
    path: Path,
    cases: Sequence[Case],
    *,
    right: float = 0.7,
    ties: float = 0.0,
    unanswered: float = 0.0,
    seed: int = 0,
    data: str = "made",
    model: str = "made",
    has: Collection[str] = DIMENSIONS,
) -> Path:
    """Of a reward model with this share of right answers on every dimension."""
    chance = random.Random(seed)
    identity = Identity(
        DataSet(cases).digest,
        {"name": model, "fingerprint": f"sha256:{model}"},
        {"limit": None, "images": "own"},
    )
    with closing(RunDirectory(path, identity)) as folder:
        for case in cases:
            folder.record(case, predict(case, chance, right, ties, unanswered, has))
        summary = summarise(cases, folder.in_order(cases))
        about = {"fingerprint": f"sha256:{model}", "data": data, "totals": {"cases": len(cases)}}
        folder.finish(cases, summary, about)
    return path


def predict(
    case: Case, chance: random.Random, right: float, ties: float, missing: float, has: Collection[str]
) -> Prediction:
    if chance.random() < missing:
        return unanswered("too_long")
    a: dict[str, float | None] = dict.fromkeys(DIMENSIONS)
    b = dict(a)
    for dimension in has:
        better = 0.0 if chance.random() < ties else chance.expovariate(1) * (1 if chance.random() < right else -1)
        a[dimension], b[dimension] = (better, 0.0) if case.labels.get(dimension) == "A" else (0.0, better)
    return by_logits(a, b)
