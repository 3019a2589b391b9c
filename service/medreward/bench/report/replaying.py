"""An audit log, shown once more to the watches of drift, and what each part of it looked like."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np

from medreward.errors import ConfigurationError
from medreward.screening.drift import Drift
from medreward.screening.samples import Sample, of_new_images, read_lines, read_reference
from medreward.types import DECIDED, DIMENSIONS, WATCHED, Flag

QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9)
PARTS: Final = 40
SMALLEST: Final = 50  # samples of a part, so that its quantiles mean something
SEED: Final = 0  # the same log gives the same report


@dataclass(frozen=True, slots=True)
class Alarm:
    """A watch that raised an alarm: at which sample, when that was decided, and what has happened."""

    name: str
    change: str
    sample: int
    time: str


@dataclass(frozen=True, slots=True)
class Part:
    """Samples that follow each other: quantiles of each dimension's scores, and shares of verdicts and flags."""

    first: int
    last: int
    time: str  # of the last one
    scores: dict[str, list[float]]  # a dimension that the model has not is left out
    verdicts: dict[str, float]
    flags: dict[str, float]
    statistics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Replay:
    fingerprint: str
    samples: int
    left_out: int  # decisions of other models
    first_time: str
    last_time: str
    reference: str  # in words
    learnt: int
    false_alarms: float
    alarms: Sequence[Alarm]
    parts: Sequence[Part]

    def json(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        last = self.parts[-1].statistics
        raised = {alarm.name: alarm for alarm in self.alarms}
        return {
            "fingerprint": self.fingerprint,
            "samples": self.samples,
            "left_out": self.left_out,
            "reference": self.reference,
            "false_alarms": self.false_alarms,
            "watches": {
                name: {
                    "statistic": round(last[name], 3),
                    "alarm": name in raised,
                    "change": raised[name].change if name in raised else None,
                    "sample": raised[name].sample if name in raised else None,
                    "time": raised[name].time if name in raised else None,
                }
                for name in WATCHED
            },
        }


def replay(
    logs: Sequence[Path],
    reference: Path | None,
    fingerprint: str | None,
    window: int,
    false_alarms: float,
    mix: int = 0,
) -> Replay:
    """Returns the replay of the logs, which are read one after another.

    Looks at one model's decisions: `fingerprint`, by default that of the last. Fails with a ConfigurationError where
    there are too few.
    """
    lines = [line for path in logs for line in read_lines(path)]
    if not lines:
        raise ConfigurationError(f"{logs[0]} holds no scores: give an audit log, or what medreward score-file wrote")
    model = fingerprint or lines[-1].fingerprint
    own = [line for line in lines if line.fingerprint == model]
    samples = [sample for _, sample in of_new_images(own)]
    known = read_reference(reference, model) if reference else []
    first = mix + (0 if known else window)
    if len(samples) < first + SMALLEST:
        raise ConfigurationError(
            f"the log has {len(samples)} samples of the model {model}, and {first + SMALLEST} are needed: give more of "
            "it, a --reference, or a smaller --window"
        )
    drift = Drift(window, false_alarms, known, Random(SEED), mix)  # noqa: S311  # it guards nothing
    size = max(SMALLEST, -(-len(samples) // PARTS))
    alarms: list[Alarm] = []
    parts: list[Part] = []
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        for place, sample in enumerate(part, start + 1):
            alarms += [Alarm(name, drift.watches[name].change, place, sample.time) for name in drift.see(sample)]
        if len(part) >= SMALLEST or not parts:
            parts.append(_part(start, part, drift))
    return Replay(
        fingerprint=model,
        samples=len(samples),
        left_out=len(lines) - len(own),
        first_time=samples[0].time,
        last_time=samples[-1].time,
        reference=f"{len(known)} samples of {reference}" if reference else f"the first {window} samples",
        learnt=first,
        false_alarms=false_alarms,
        alarms=alarms,
        parts=parts,
    )


def _part(start: int, samples: Sequence[Sample], drift: Drift) -> Part:
    verdicts = Counter(sample.verdict for sample in samples if sample.verdict)
    flags = Counter(chain.from_iterable(sample.flags for sample in samples))
    decided = verdicts.total()
    return Part(
        first=start + 1,
        last=start + len(samples),
        time=samples[-1].time,
        scores={name: quantiles for name in DIMENSIONS if (quantiles := _quantiles(name, samples))},
        verdicts={verdict: verdicts[verdict] / decided for verdict in DECIDED} if decided else {},
        flags={flag: flags[flag] / len(samples) for flag in Flag},
        statistics={name: drift.statistic(name) for name in WATCHED},
    )


def _quantiles(dimension: str, samples: Iterable[Sample]) -> list[float]:
    place = DIMENSIONS.index(dimension)
    scores = [score for sample in samples if (score := sample.scores[place]) is not None]
    return [float(value) for value in np.quantile(scores, QUANTILES)] if scores else []
