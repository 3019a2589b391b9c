"""How often a policy promotes, refuses and cannot tell: the gate on simulated runs of models whose truth is known.

    python -m medreward.bench.gate.power [--policy FILE] [--cases N] [--repetitions N]

A pair's better answer wins by 2 m u on the logit scale, u normal with mean m and standard deviation 1, m the normal
quantile of the accuracy: such a margin is calibrated. A part of u is common to the six dimensions of a case, and a part
to baseline and candidate, just so large that they differ on the stated share of pairs.
"""

import gc
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import click
import numpy as np
from scipy import optimize, stats

from medreward.bench.gate.checks import Verdict, verdict_of
from medreward.bench.gate.load import Rounds, compare_rounds
from medreward.bench.gate.policy import Policy, read_policy
from medreward.bench.gate.quality import quality
from medreward.bench.sheet import Sheet
from medreward.bench.statistics import Floats
from medreward.types import DIMENSIONS

ORGANS: Final = 13
SIX: Final = len(DIMENSIONS)
ACCURACY_ONLY: Final = np.eye(SIX)[0]


@dataclass(frozen=True, slots=True)
class World:
    """The data, the baseline, and how alike things are."""

    cases: int = 1026
    accuracy: float = 0.72
    discordant: float = 0.2  # share of pairs on which exactly one of baseline and equal candidate is right
    within_case: float = 0.3  # correlation of a model's u on two dimensions of a case
    labels: float = 0.5  # correlation of two dimensions' labels
    text_accuracy: float = 0.6  # of what can be known without the image
    round_noise: float = 0.1  # standard deviation of the logarithm of a round's latency


@dataclass(frozen=True)
class Release:
    """What the gate decides on."""

    candidate: Sheet
    baseline: Sheet
    blanked: Sheet  # the candidate, without the images
    latency: Rounds


def release(world: World, rng: np.random.Generator, worse_by: Floats | float = 0.0) -> Release:
    """Returns a candidate whose accuracy is lower by so much, on all six dimensions or on each."""
    cases = unanswered_cases(world, rng)
    common = _noise(world, rng)
    weight = common_part(world.accuracy, world.discordant)

    def run(accuracy: Floats) -> Sheet:
        mean = stats.norm.ppf(accuracy)
        u = mean + math.sqrt(weight) * common + math.sqrt(1 - weight) * _noise(world, rng)
        return with_margins(cases, cases.labels * 2 * mean * u)

    accuracy = np.full(SIX, world.accuracy)
    baseline, candidate = run(accuracy), run(accuracy - worse_by)
    mean = stats.norm.ppf(world.text_accuracy)
    blanked = with_margins(cases, cases.labels * 2 * mean * (mean + _noise(world, rng)))
    return Release(candidate, baseline, blanked, latency(world, rng, 1.0))


def verdict(policy: Policy, release: Release) -> Verdict:
    """Returns the gate's verdict under the policy, of all it looks at but the endpoints."""
    checks = list(quality(policy, release.candidate, release.baseline, release.blanked))
    if policy.load:
        checks.append(compare_rounds("load/latency", "latency", release.latency, policy.load.max_ratio, policy.alpha))
    return verdict_of(checks)


def with_margins(cases: Sheet, margins: Floats) -> Sheet:
    return replace(cases, choices=np.sign(margins), margins=margins)


@cache
def common_part(accuracy: float, discordant: float) -> float:
    """Returns the share of the variance of u that both models have in common."""
    mean = float(stats.norm.ppf(accuracy))

    def differ(correlation: float) -> float:
        both = stats.multivariate_normal.cdf([mean, mean], cov=[[1, correlation], [correlation, 1]])
        return 2 * (accuracy - float(both)) - discordant

    return float(optimize.brentq(differ, 0.0, 1 - 1e-9))


def unanswered_cases(world: World, rng: np.random.Generator) -> Sheet:
    """Returns the labelled cases, with no answer to any of them."""
    n = world.cases
    side = rng.choice([-1.0, 1.0], (n, 1))
    agrees = rng.random((n, SIX)) < (1 + math.sqrt(world.labels)) / 2
    nothing, nobody = np.full((n, SIX), np.nan), np.full(n, "")
    organs = np.array([f"organ-{number % ORGANS + 1:02}" for number in range(n)])
    labels, lengths = np.where(agrees, side, -side), rng.integers(40, 400, (n, 2))
    return Sheet(labels, nothing, nothing, np.arange(n), lengths, organs, nobody, nobody)


def _noise(world: World, rng: np.random.Generator) -> Floats:
    of_case, own = rng.standard_normal((world.cases, 1)), rng.standard_normal((world.cases, SIX))
    sum_: Floats = math.sqrt(world.within_case) * of_case + math.sqrt(1 - world.within_case) * own
    return sum_


def latency(world: World, rng: np.random.Generator, factor: float) -> Rounds:
    candidate, baseline = np.exp(rng.normal(0, world.round_noise, (2, 8)))
    return Rounds(factor * candidate, baseline)


# what must not be promoted


def swapped_heads(world: World, rng: np.random.Generator, sound: Release) -> Release:
    order = np.arange(SIX)
    one, other = rng.choice(SIX, 2, replace=False)
    order[[one, other]] = other, one
    return replace(sound, candidate=with_margins(sound.candidate, sound.candidate.margins[:, order]))


def shifted_organ(world: World, rng: np.random.Generator, sound: Release) -> Release:
    """Returns a candidate whose answers stand one row too low in one organ."""
    organs = sound.candidate.organs
    rows = np.flatnonzero(organs == rng.choice(organs))
    margins = sound.candidate.margins.copy()
    margins[rows] = np.roll(margins[rows], 1, axis=0)
    return replace(sound, candidate=with_margins(sound.candidate, margins))


def image_ignored(world: World, rng: np.random.Generator, sound: Release) -> Release:
    return replace(sound, candidate=sound.blanked)


def twice_as_slow(world: World, rng: np.random.Generator, sound: Release) -> Release:
    return replace(sound, latency=latency(world, rng, 2.0))


def five_percent_refused(world: World, rng: np.random.Generator, sound: Release) -> Release:
    refused = rng.random(world.cases) < 0.05
    margins = np.where(refused[:, None], np.nan, sound.candidate.margins)
    return replace(sound, candidate=with_margins(sound.candidate, margins))


def broken_tokenizer(world: World, rng: np.random.Generator, sound: Release) -> Release:
    """Returns a candidate whose numbers have nothing to do with the texts."""
    spread = float(np.std(sound.candidate.margins))
    return replace(sound, candidate=with_margins(sound.candidate, spread * _noise(world, rng)))


Spoil = Callable[[World, np.random.Generator, Release], Release]
PLANTED: Final[Mapping[str, Spoil]] = {
    "two heads swapped": swapped_heads,
    "one organ's answers shifted by a row": shifted_organ,
    "ignores the image": image_ignored,
    "twice as slow": twice_as_slow,
    "refuses 5% of cases": five_percent_refused,
    "broken tokenizer": broken_tokenizer,
}


def verdicts(
    policy: Policy,
    world: World,
    repetitions: int,
    *,
    worse_by: Floats | float = 0.0,
    spoil: Spoil | None = None,
    seed: int = 0,
) -> Counter[Verdict]:
    """Returns how often the gate says what on so many simulated releases; `spoil` plants a fault in each of them."""
    rng = np.random.default_rng(seed)
    counts: Counter[Verdict] = Counter()
    gc.freeze()  # statsmodels collects garbage at every correction, which took three quarters of the time
    for _ in range(repetitions):
        sound = release(world, rng, worse_by)
        counts[verdict(policy, spoil(world, rng, sound) if spoil else sound)] += 1
    gc.unfreeze()
    return counts


def _print_row(name: str, counts: Counter[Verdict]) -> None:
    shares = (f"{100 * counts[verdict] / counts.total():.1f}" for verdict in Verdict)
    click.echo(f"| {name} | {' | '.join(shares)} |")


def _print_head(title: str) -> None:
    click.echo(f"\n| {title} | {' | '.join(Verdict)} |\n| --- | --- | --- | --- |")


DIFFERENCES: Final = (0.04, 0.02, 0.01, 0.0, -0.01, -0.02, -0.03, -0.04, -0.05, -0.06, -0.08, -0.10)
DISCORDANT: Final = (0.1, 0.15, 0.2, 0.25, 0.3)
ACCURACIES: Final = (0.62, 0.67, 0.72, 0.77, 0.82)


@click.command()
@click.option("--policy", default="default", show_default=True, help="a file, or a policy's name")
@click.option("--cases", default=World().cases, show_default=True)
@click.option("--repetitions", default=1000, show_default=True)
def main(policy: str, cases: int, repetitions: int) -> None:
    """Print verdicts in 100, as tables in Markdown."""
    rules, world = read_policy(policy).policy, World(cases)
    click.echo(f"{repetitions} repetitions a row; {world}")
    _print_head("candidate against baseline, points on every dimension")
    for difference in DIFFERENCES:
        _print_row(f"{100 * difference:+.0f}", verdicts(rules, world, repetitions, worse_by=-difference))
    _print_head("points on accuracy alone")
    for difference in DIFFERENCES:
        _print_row(
            f"{100 * difference:+.0f}", verdicts(rules, world, repetitions, worse_by=-difference * ACCURACY_ONLY)
        )
    _print_head("an equal candidate, discordant share of pairs")
    for share in DISCORDANT:
        _print_row(f"{100 * share:.0f}%", verdicts(rules, replace(world, discordant=share), repetitions))
    _print_head("planted")
    for name, spoil in PLANTED.items():
        _print_row(name, verdicts(rules, world, repetitions, spoil=spoil))
    _print_head("one organ shifted, accuracy of the baseline")
    for accuracy in ACCURACIES:
        one = replace(world, accuracy=accuracy)
        _print_row(f"{100 * accuracy:.0f}%", verdicts(rules, one, repetitions, spoil=shifted_organ))
    _print_head("an equal candidate, cases")
    for n in (500, 1000, 2000, 4000):
        _print_row(str(n), verdicts(rules, replace(world, cases=n), repetitions))


if __name__ == "__main__":
    main()
