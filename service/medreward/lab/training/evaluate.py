"""Shares of pairs that a model gets right, with 95% intervals: by kind and set, with the image and without."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medreward.intervals import wilson
from medreward.lab.training.corpus import DevPair
from medreward.lab.training.images import Images
from medreward.lab.training.model import Model
from medreward.lab.training.tokens import Tokens
from medreward.types import DIMENSIONS

IMAGES_AT_ONCE: Final = 32
ROWS_AT_ONCE: Final = 128


@dataclass(frozen=True, slots=True)
class Share:
    share: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class DevLogits:
    """Holds the logits of both answers of each pair: [pairs, 2, heads, dimensions]."""

    seen: NDArray[np.float32]
    blank: NDArray[np.float32]


def share_of(right: float, n: int) -> Share:
    return Share(right / n, *wilson(right, n), n) if n else Share(0.0, 0.0, 1.0, 0)


def dev_logits(model: Model, pairs: Sequence[DevPair], images: Images, tokens: Tokens) -> DevLogits:
    names = sorted({pair.image for pair in pairs})
    place = {name: index for index, name in enumerate(names)}
    with torch.inference_mode():
        encoded = torch.cat(
            [
                model.tower(torch.from_numpy(images[names[start : start + IMAGES_AT_ONCE]])).to(torch.float32)
                for start in range(0, len(names), IMAGES_AT_ONCE)
            ]
        )
        rows = [tokens.row(pair.question, text) for pair in pairs for text in (pair.good, pair.bad)]
        row_image = torch.tensor([place[pair.image] for pair in pairs for _ in range(2)])
        found = [_logits(model, encoded, row_image, rows, tokens, shown) for shown in (1.0, 0.0)]
    shaped = [logits.numpy().reshape(len(pairs), 2, -1, len(DIMENSIONS)) for logits in found]
    return DevLogits(*shaped)


def _logits(
    model: Model, encoded: Tensor, row_image: Tensor, rows: Sequence[Sequence[int]], tokens: Tokens, shown: float
) -> Tensor:
    order = np.argsort([len(row) for row in rows], kind="stable")
    found = []
    for start in range(0, len(order), ROWS_AT_ONCE):
        chosen = order[start : start + ROWS_AT_ONCE]
        texts = tokens.padded([rows[place] for place in chosen])
        image, where = torch.unique(row_image[torch.from_numpy(chosen)], return_inverse=True)
        found.append(model.logits(encoded[image], where, torch.full((len(chosen),), shown), texts))
    return torch.cat(found)[torch.from_numpy(np.argsort(order, kind="stable"))]


def report(pairs: Sequence[DevPair], logits: DevLogits) -> dict[str, Any]:
    """Returns the shares won by kind and set, with the image and blanked, as the kind's first dimension decides."""
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        for source in ("all", pair.source):
            places[pair.kind, source].append(place)
    tables = {name: wins(pairs, values) for name, values in (("seen", logits.seen), ("blank", logits.blank))}
    found: dict[str, Any] = {}
    for (kind, source), chosen in sorted(places.items()):
        shares = {name: asdict(share_of(float(right[chosen].sum()), len(chosen))) for name, right in tables.items()}
        found.setdefault(kind, {})[source] = shares
    return found


def wins(pairs: Sequence[DevPair], logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns 1 where the good answer has the higher logit on the pair's first dimension, and a half at a tie."""
    ahead = ahead_by(logits)
    first = np.array([DIMENSIONS.index(pair.dimensions[0]) for pair in pairs])
    chosen = ahead[np.arange(len(pairs)), first]
    return won(chosen)


def won(ahead: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns 1 for each that is ahead, and a half at a tie."""
    credit: NDArray[np.float64] = (ahead > 0) + 0.5 * (ahead == 0)
    return credit


def ahead_by(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns how far the good answer's mean logit is ahead: [pairs, dimensions]."""
    mean = logits.astype(np.float64).mean(2)
    ahead: NDArray[np.float64] = mean[:, 0] - mean[:, 1]
    return ahead


def summary(tables: dict[str, Any]) -> str:
    """Returns the tables in one line."""
    parts = []
    for kind, sources in tables.items():
        shares = "/".join(f"{100 * sources[name]['seen']['share']:.1f}" for name in sources)
        parts.append(f"{kind} {shares} (blank {100 * sources['all']['blank']['share']:.1f})")
    return ", ".join(parts)
