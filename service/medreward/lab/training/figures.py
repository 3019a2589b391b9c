"""Figures with their intervals: shares, differences of shares, correlations, errors by quartile, win rates."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from medreward.lab.training.evaluate import share_of, won

DRAWS: Final = 2000
Numbers = NDArray[np.float64]


def share(right: Numbers) -> dict[str, Any]:
    return asdict(share_of(float(right.sum()), len(right)))


def gain(seen: Numbers, blank: Numbers, clusters: Sequence[str]) -> dict[str, Any]:
    """Returns by how much the first share is above the second; the interval draws whole clusters."""
    sums = _by_cluster(np.stack([seen - blank, np.ones(len(seen))], 1), clusters)
    return _with_interval("gain", sums, lambda total: total[:, 0] / total[:, 1], len(seen))


def correlation(x: Numbers, y: Numbers, clusters: Sequence[str]) -> dict[str, Any]:
    """Returns Pearson's r within rows: each row's mean is removed; a row belongs to a cluster."""
    x, y = (values - values.mean(1, keepdims=True) for values in (x, y))
    products = np.stack([(x * y).sum(1), (x * x).sum(1), (y * y).sum(1)], 1)
    found = _with_interval("r", _by_cluster(products, clusters), _pearson, x.size)
    return {**found, "slope": float(products[:, 0].sum() / max(products[:, 1].sum(), 1e-12))}


def quartiles(spread: Numbers, wrong: Numbers) -> list[dict[str, Any]]:
    """Returns the share that is wrong, from the quarter of least spread to that of most."""
    parts = np.array_split(np.argsort(spread, kind="stable"), 4)
    return [
        {"from": float(spread[part].min()), "to": float(spread[part].max()), "wrong": share(wrong[part])}
        for part in parts
        if len(part)
    ]


def ranked(spread: Numbers, wrong: Numbers) -> float | None:
    """Returns how often something wrong has more spread than something right; a half tells nothing."""
    of_wrong, of_right = spread[wrong > 0.5], spread[wrong < 0.5]
    if not len(of_wrong) or not len(of_right):
        return None
    return float(won(of_wrong[:, None] - of_right[None]).mean())


def reliability(ahead: Numbers) -> dict[str, Any]:
    """Returns win rates as predicted and as observed, in ten bins, and the expected calibration error."""
    sure = 1 / (1 + np.exp(-np.abs(ahead)))
    credit = won(ahead)
    bins = np.minimum(((sure - 0.5) * 20).astype(int), 9)
    found, error = [], 0.0
    for chosen in (bins == place for place in np.unique(bins)):
        predicted, observed = float(sure[chosen].mean()), share(credit[chosen])
        found.append({"predicted": predicted, "observed": observed})
        error += abs(observed["share"] - predicted) * float(chosen.mean())
    return {"error": error, "n": len(ahead), "bins": found}


def _pearson(total: Numbers) -> Numbers:
    r: Numbers = total[:, 0] / np.sqrt(np.maximum(total[:, 1] * total[:, 2], 1e-12))
    return r


def _by_cluster(values: Numbers, clusters: Sequence[str]) -> Numbers:
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, place, values)
    return sums


def _with_interval(name: str, sums: Numbers, statistic: Callable[[Numbers], Numbers], n: int) -> dict[str, Any]:
    """Returns a statistic of the sums over all clusters; clusters are drawn anew for the 95%."""
    counts = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), DRAWS)
    low, high = np.percentile(statistic(counts @ sums), (2.5, 97.5))
    return {name: float(statistic(sums.sum(0)[None])[0]), "low": float(low), "high": float(high), "n": n}
