"""How often drift alarms without cause, and how soon with one: answers from a seed, shown to the real watches.

Six scores that hang together, a flag in 3% of answers, verdicts by the first score. The last line is JSON.
"""

import json
import math
import time
from collections.abc import Iterator
from itertools import islice
from random import Random

import click
import numpy as np

from medreward.screening.drift import Drift
from medreward.screening.samples import Sample
from medreward.types import Flag


def answers(random: Random, shift: float = 0.0) -> Iterator[Sample]:
    """Gives answers without end. `shift` moves the first score, in standard deviations of its log odds."""
    while True:
        common = random.gauss(0, 1)
        odds = [0.6 * common + 0.8 * random.gauss(0, 1) for _ in range(6)]
        odds[0] += shift
        flags = (Flag.OUT_OF_SCOPE,) if random.random() < 0.03 else ()
        verdict = "allow" if odds[0] > 0.7 else "block" if odds[0] < -1.3 else "review"
        yield Sample(tuple(1 / (1 + math.exp(-1.5 * x)) for x in odds), flags, verdict, ("p", "1"))


def false_alarm(seed: int, window: int, false_alarms: float, length: int) -> bool:
    """Returns whether any watch of a run without a change raised an alarm."""
    drift = Drift(window, false_alarms, (), Random(seed))
    return any(drift.see(sample) for sample in islice(answers(Random(seed)), window + length))


def found_after(seed: int, window: int, before: int, shift: float, longest: int) -> int | None:
    """Returns after how many shifted answers the first score's watch raised its alarm; None where it did not."""
    drift, random = Drift(window, 0.01, (), Random(seed)), Random(seed)
    for sample in islice(answers(random), window + before):
        drift.see(sample)
    return next(
        (n for n, s in enumerate(islice(answers(random, shift), longest), 1) if "accuracy" in drift.see(s)), None
    )


@click.command(help=__doc__)
@click.option("--runs", default=200, show_default=True)
@click.option("--length", default=5000, show_default=True, help="Answers of a run without a change, behind its window.")
@click.option("--shift", default=0.3, show_default=True, help="Of the first score, in standard deviations.")
def main(runs: int, length: int, shift: float) -> None:
    made: dict[str, object] = {"runs": runs, "length": length, "shift": shift}
    for stated in (0.01, 0.2):
        made[f"alarms_at_{stated}"] = sum(false_alarm(seed, 1000, stated, length) for seed in range(runs)) / runs
        print(f"without a change, stated {stated:.0%}: {made[f'alarms_at_{stated}']:.1%} of {runs} runs alarm")
    for before in (0, 1000, 10_000):
        found = [found_after(seed, 1000, before, shift, 3000) for seed in range(runs // 4)]
        delays = [math.inf if n is None else n for n in found]
        median, nineteen = (float(np.quantile(delays, q, method="higher")) for q in (0.5, 0.95))
        made[f"found_after_{before}"] = [median, nineteen]
        print(
            f"shift of {shift} sd after {before} answers: found within {median:.0f} (half), {nineteen:.0f} (19 of 20)"
        )
    drift, few = Drift(1000, 0.01, (), Random(1)), list(islice(answers(Random(1)), 2000))
    started = time.process_time()
    for sample in few:
        drift.see(sample)
    made["us_per_answer"] = round((time.process_time() - started) / len(few) * 1e6, 1)
    print(f"cost: {made['us_per_answer']} us of CPU an answer")
    print(json.dumps(made))


if __name__ == "__main__":
    main()
