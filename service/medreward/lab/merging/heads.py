"""Several heads to one: each is first brought to the same scale, which the calibrations of their models know."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from medreward.artifacts.manifest import Calibration
from medreward.errors import ConfigurationError

Head: TypeAlias = Mapping[str, Tensor]  # by the names of `TrainedHeads`, each with its first axis
Levels: TypeAlias = Mapping[str, Calibration]


def common_levels(levels: Sequence[Levels], shares: Sequence[float]) -> dict[str, Calibration]:
    """Returns for each dimension the mean, by share, of medians and scales: the scale that heads are brought to."""
    return {
        dimension: Calibration(
            median=sum(share * each[dimension].median for share, each in zip(shares, levels, strict=True)),
            scale=sum(share * each[dimension].scale for share, each in zip(shares, levels, strict=True)),
        )
        for dimension in levels[0]
    }


def aligned(head: Head, own: Levels, common: Levels, dimensions: Sequence[str]) -> dict[str, Tensor]:
    """Returns the head with logits on the common scale: (logit - own median) x common scale / own scale + median.

    A logit and what it becomes have the same score, each by its own calibration.
    """
    if all(own[dimension] == common[dimension] for dimension in dimensions):
        return dict(head)
    factor = torch.tensor([common[d].scale / own[d].scale for d in dimensions], dtype=torch.float64)
    shift = torch.tensor(
        [common[d].median - own[d].median * common[d].scale / own[d].scale for d in dimensions], dtype=torch.float64
    )
    return {
        **head,
        "weight": (head["weight"].double() * factor[:, None]).float(),
        "bias": (head["bias"].double() * factor + shift).float(),
    }


def merged(heads: Sequence[Head], shares: Sequence[float]) -> dict[str, Tensor]:
    """Returns one head whose logits are the mean, by share, of those of all heads on one state.

    Linear heads are averaged. Of heads of two layers the inner units stand side by side. Fails with a
    ConfigurationError where heads are of two kinds, or ensembles of different size.
    """
    heads, shares = zip(*((head, share) for head, share in zip(heads, shares, strict=True) if share), strict=True)
    if len(heads) == 1:
        return dict(heads[0])
    if len({(frozenset(head), head["bias"].shape) for head in heads}) > 1:
        raise ConfigurationError(
            "the experts' heads cannot become one: some are linear and some of two layers, or they differ in number"
        )
    bias = _mean([head["bias"] for head in heads], shares)
    if "inner.weight" not in heads[0]:
        return {"weight": _mean([head["weight"] for head in heads], shares), "bias": bias}
    outer = [share * head["weight"] for share, head in zip(shares, heads, strict=True)]
    inner = {name: torch.cat([head[name] for head in heads], dim=1) for name in ("inner.weight", "inner.bias")}
    return {"weight": torch.cat(outer, dim=2), "bias": bias, **inner}


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    return sum((s * t.double() for s, t in zip(shares, tensors, strict=True)), torch.zeros(())).float()
