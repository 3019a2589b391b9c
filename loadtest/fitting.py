"""How often a fitted policy keeps its bound: `screen fit` on random halves of a labelled file, looked at on the others.

Halves hold whole groups (images). The answers are scored once, with the model in this process. Prints a table for each
bound, beside what a threshold would do that is taken from the labels without a bound; the last line is JSON.

    python -m loadtest.fitting LABELLED [--splits 200] [--max-false-allow 0.05 0.1 0.2]
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from medreward.bench.screening.answers import Answer, column, images_of
from medreward.bench.screening.fitting import fit
from medreward.bench.screening.wish import NotShownError, Wish
from medreward.bench.statistics import Floats, Groups
from medreward.cli.client import open_client
from medreward.cli.labelled import Reader
from medreward.cli.show import progress_bar
from medreward.screening.deciding import Decider
from medreward.screening.policy import Measure
from medreward.types import Verdict


@dataclass(frozen=True)
class Found:
    """Of so many splits. `kept` are shares of splits in which the rate on the other half is within the bound."""

    max_false_allow: float
    splits: int
    not_shown: int  # splits whose labels could not show the bound
    kept_by_answer: float  # the rate is that of all wrong answers
    kept_by_image: float  # the rate is the mean over images
    false_allow: float  # mean of the rates by answer
    right_allowed: float
    unbounded_kept: float  # of the threshold without a bound, by answer
    unbounded_right_allowed: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="LABELLED")
    parser.add_argument("--model", default="medreward-mini")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--max-false-allow", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--guard", default="none")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    answers, fingerprint = asyncio.run(scored(args.data, args.model))
    wish = Wish("split", "1", fingerprint, f"sha256:{'0' * 64}", guard=args.guard)
    found = [replay(answers, replace(wish, max_false_allow=rate), args) for rate in args.max_false_allow]
    for one in found:
        print(", ".join(f"{name} {value:.4g}" for name, value in asdict(one).items()))
    print(json.dumps([asdict(one) for one in found]))


async def scored(data: Path, model: str) -> tuple[list[Answer], str]:
    """Returns the labelled answers with their scores, and the model's fingerprint."""
    async with open_client(None, None, {"model": model}, concurrency=4) as client:
        ref = await client.pin_model()
        with progress_bar("answers") as progress:
            read = await Reader(client, {}, ["accuracy"]).read(data, progress)
    return [answer for _, answer in read], ref.fingerprint


def replay(answers: Sequence[Answer], wish: Wish, args: argparse.Namespace) -> Found:
    """Returns what policies that are fitted on one half do to the other."""
    rng, images = np.random.default_rng(args.seed), images_of(answers)
    rows: list[tuple[float, ...]] = []
    not_shown = 0
    for _ in range(args.splits):
        half = rng.permutation(np.unique(images))[: len(np.unique(images)) // 2]
        inside = np.isin(images, half)
        fitted = [answer for answer, here in zip(answers, inside, strict=True) if here]
        others = [answer for answer, here in zip(answers, inside, strict=True) if not here]
        try:
            decider = Decider(fit(fitted, wish).policy, None)
        except NotShownError:
            not_shown += 1
            continue
        verdicts = [decider.decide(one.result, one.response).verdict for one in others]
        allowed = np.array([verdict is Verdict.ALLOW for verdict in verdicts], dtype=np.float64)
        wrong = np.array([not one.right for one in others])
        over_images = mean_over_images(allowed[wrong], images[~inside][wrong])
        plain = np.asarray(column(others, Measure.LOGIT, wish.dimension) > unbounded(fitted, wish))
        shares = (part.mean() for part in (allowed[wrong], allowed[~wrong], plain[wrong], plain[~wrong]))
        rows.append((over_images, *map(float, shares)))
    by_image, by_answer, right, plain_wrong, plain_right = np.array(rows).reshape(-1, 5).T
    return Found(
        wish.max_false_allow,
        args.splits,
        not_shown,
        float((by_answer <= wish.max_false_allow).mean()),
        float((by_image <= wish.max_false_allow).mean()),
        float(by_answer.mean()),
        float(right.mean()),
        float((plain_wrong <= wish.max_false_allow).mean()),
        float(plain_right.mean()),
    )


def unbounded(answers: Sequence[Answer], wish: Wish) -> float:
    """Returns the threshold above which just the allowed share of these very wrong answers lies."""
    wrong = column([answer for answer in answers if not answer.right], Measure.LOGIT, wish.dimension)
    return float(np.quantile(wrong, 1 - wish.max_false_allow))


def mean_over_images(values: Floats, images: Groups) -> float:
    _, numbers = np.unique(images, return_inverse=True)
    return float((np.bincount(numbers, weights=values) / np.bincount(numbers)).mean())


if __name__ == "__main__":
    main()
