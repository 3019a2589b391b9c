"""The arithmetic of `loadtest.experts`: what a merge keeps of its experts, with intervals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from medreward.intervals import wilson

DRAWS: Final = 2000
LEAST_GAIN: Final = 0.1
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trial:
    """Which pairs of one specialty base, expert and another model get right (1 or 0), the same pairs in one order."""

    base: Numbers
    expert: Numbers
    other: Numbers


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95% interval, for which the pairs of each trial are drawn anew."""

    value: float
    low: float
    high: float


def share_kept(trials: Sequence[Trial]) -> Estimate | None:
    """Returns which share of the expert's gain over the base the other model keeps: the mean over the trials.

    A trial whose expert gained less than LEAST_GAIN does not count, because a share of nearly nothing tells nothing;
    None where that is so of all.
    """
    gained = [trial for trial in trials if trial.expert.mean() - trial.base.mean() >= LEAST_GAIN]
    return _estimate(gained, _kept) if gained else None


def lead(trials: Sequence[Trial]) -> Estimate:
    """Returns by how much the experts' share of right pairs is above the other model's: the mean over the trials."""
    return _estimate(trials, lambda _, expert, other: expert - other)


def _kept(base: Numbers, expert: Numbers, other: Numbers) -> Numbers:
    gain = np.where(expert > base, expert - base, np.nan)
    share: Numbers = (other - base) / gain
    return share


def _estimate(trials: Sequence[Trial], figure: Callable[[Numbers, Numbers, Numbers], Numbers]) -> Estimate:
    """Returns the mean of the figure over the trials. It takes shares of right pairs: of base, expert and other."""
    random = np.random.default_rng(0)
    values, drawn = [], []
    for trial in trials:
        right = np.stack([trial.base, trial.expert, trial.other])
        pairs = random.integers(right.shape[1], size=(DRAWS, right.shape[1]))
        values.append(figure(*right.mean(1)[:, None]))
        drawn.append(figure(*right[:, pairs].mean(2)))
    low, high = np.nanpercentile(np.nanmean(drawn, 0), (2.5, 97.5))
    return Estimate(float(np.mean(values)), float(low), float(high))


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns the results of all seeds as Markdown: accuracy by specialty, experts before the general model, and what
    merges keep.
    """
    return "\n".join([*_accuracy(results), "", *_leads(results), "", *_shares(results), ""])


def _accuracy(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Gives right pairs in percent with Wilson's 95% interval, of all seeds together."""
    specialties = [*results[0]["credits"]["base"]]
    yield f"| model | {' | '.join(specialties)} | all | all, grey image |"
    yield "| --- |" + " --- |" * (len(specialties) + 2)
    for model in results[0]["credits"]:
        seen, grey = (
            [np.concatenate([one["credits"][model][name][shown] for one in results]) for name in specialties]
            for shown in ("seen", "grey")
        )
        parts = [*seen, np.concatenate(seen), np.concatenate(grey)]
        yield f"| {model} | {' | '.join(_percent(part) for part in parts)} |"


def _leads(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    specialties = [*results[0]["credits"]["base"]]
    yield (
        "| expert before the general model, points | "
        + " | ".join(f"seed {one['seed']}" for one in results)
        + " | mean |"
    )
    yield "| --- |" + " --- |" * (len(results) + 1)
    for names in [*([name] for name in specialties), specialties]:
        leads = [lead(_trials([one], "general", names)) for one in results]
        told = [f"{100 * each.value:.0f}" for each in leads] + [_points(lead(_trials(results, "general", names)))]
        yield f"| {names[0] if len(names) == 1 else 'mean'} | {' | '.join(told)} |"


def _shares(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    specialties = [*results[0]["credits"]["base"]]
    yield "| share of the experts' gain kept, % | " + " | ".join(f"seed {one['seed']}" for one in results) + " | mean |"
    yield "| --- |" + " --- |" * (len(results) + 1)
    for model in results[0]["credits"]:
        if model not in ("base", "expert"):
            shares = [share_kept(_trials([one], model, specialties)) for one in results]
            told = [f"{100 * each.value:.0f}" if each else "no gain" for each in shares]
            name = model + _settings(results, model.removesuffix(", chosen")) if model.endswith("chosen") else model
            mean = share_kept(_trials(results, model, specialties))
            yield f"| {name} | {' | '.join(told)} | {_points(mean) if mean else 'no gain'} |"


def _settings(results: Sequence[Mapping[str, Any]], method: str) -> str:
    """Returns the density and the scale that each seed chose."""
    return ": " + ", ".join("{:g} by {:g}".format(*one["chosen"][method]) for one in results)


def _trials(results: Sequence[Mapping[str, Any]], model: str, specialties: Sequence[str]) -> list[Trial]:
    return [
        Trial(*(np.array(one["credits"][each][name]["seen"]) for each in ("base", "expert", model)))
        for one in results
        for name in specialties
    ]


def _percent(right: Numbers) -> str:
    low, high = wilson(right.sum(), len(right))
    return f"{100 * right.mean():.0f} ({100 * low:.0f} to {100 * high:.0f})"


def _points(found: Estimate) -> str:
    return f"{100 * found.value:.0f} ({100 * found.low:.0f} to {100 * found.high:.0f})"
