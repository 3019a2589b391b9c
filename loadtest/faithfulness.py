"""How often `explain: sentences` names the false sentence first, of answers of several sentences with exactly one.

Named first is the sentence with the lowest contribution. Answers are constructed, one an image: on phantoms, or with
--data on a folder whose dev_pairs.jsonl has pairs of kind `accuracy`. There are two constructions: `own`, where the
false sentence answers the question and the others are true remarks; `several`, where each sentence answers one of as
many questions. The control is the share of the same answers, with that claim true, in which the same sentence is named:
a model that knows nothing has the same share in both. `lower` is the share in which the sentence adds less when it is
false than when it is true. The last line is JSON.
"""

import argparse
import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from medreward.engine.engine import Engine
from medreward.intervals import wilson
from medreward.lab.phantoms.answer import RECIPES, written
from medreward.lab.phantoms.ask import questions
from medreward.lab.phantoms.benchmark import png
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.draw import draw, imagine
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import DIMENSIONS, Explain, InlineImage, Item, Options, Scored, ScoreRequest

LEADS = ("This is most consistent with ", "Looking at the image, I would say ", "On this study: ", "The answer is ")
OWN, SEVERAL = "own", "several"
BY = ("accuracy", "overall", "reward")

Contributions = dict[str, list[float]]  # of each sentence, by BY


@dataclass(frozen=True)
class Claim:
    """A question about an image, and a true and a false answer to it; `remark` says the true one without it."""

    question: str
    true: str
    false: str
    remark: str


@dataclass(frozen=True)
class Case:
    image: bytes
    question: str
    sentences: tuple[str, ...]
    place: int  # of the false sentence
    true: str  # what stands in its place in the control

    def control(self) -> "Case":
        """Returns the same case with the claim true."""
        sentences = (*self.sentences[: self.place], self.true, *self.sentences[self.place + 1 :])
        return replace(self, sentences=sentences)


def main() -> None:
    args = arguments()
    claims = [*(of_pairs(args.data, args.only) if args.data else of_phantoms(args.images))]
    found = asyncio.run(measured(args.model, claims, args))
    for row in found:
        shares = "  ".join(f"{by} {row[by]:.0%} ({row[f'{by}_low']:.0%} to {row[f'{by}_high']:.0%})" for by in BY)
        control, lower = ("  ".join(f"{row[f'{by}_{what}']:.0%}" for by in BY) for what in ("control", "lower"))
        print(
            f"{row['set']:8} {row['sentences']} sentences, n {row['n']:3}: {shares}; control {control}; lower {lower}"
        )
    print(json.dumps({"benchmark": "faithfulness", "model": args.model, "rows": found}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="medreward-mini")
    parser.add_argument("--data", type=Path, metavar="DIR", help="without it: phantoms")
    parser.add_argument("--only", metavar="SET", help="of the data: the images of this set")
    parser.add_argument("--images", type=int, default=120, help="phantoms")
    parser.add_argument("--sentences", type=int, nargs="+", default=(2, 3, 4))
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def of_pairs(folder: Path, only: str | None) -> Iterator[tuple[bytes, list[Claim]]]:
    """Yields each image with its claims, one a question."""
    images: defaultdict[str, dict[str, Claim]] = defaultdict(dict)
    for line in (folder / "dev_pairs.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["kind"] == "accuracy" and only in (None, row["set"]):
            bare = row["good"]
            for lead in LEADS:
                bare = bare.removeprefix(lead)
            remark = whole(f"{row['question'].strip().rstrip('?').strip()}: {bare}")
            claim = Claim(row["question"], whole(row["good"]), whole(row["bad"]), remark)
            images[row["image"]].setdefault(row["question"], claim)
    for name, claims in images.items():
        yield (folder / name).read_bytes(), [*claims.values()]


def of_phantoms(count: int) -> Iterator[tuple[bytes, list[Claim]]]:
    for seed in range(count):
        phantom, claims = imagine(seed), []
        for question in questions(phantom, seed):
            dice = Dice("faithfulness", seed, question.text)
            said = [written(phantom, question, RECIPES[name], dice, wordy=True) for name in ("right", "wrong")]
            if question.kind != "description" and said[0] and said[1]:
                claims.append(Claim(question.text, said[0].text, said[1].text, said[0].text))
        yield png(draw(seed)), claims


def whole(text: str) -> str:
    """Returns the text as a sentence."""
    text = " ".join(text.split())
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def cases(claims: Sequence[tuple[bytes, list[Claim]]], kind: str, size: int, seed: int) -> Iterator[Case]:
    """Yields one case of each image about which there are enough claims."""
    rng = random.Random(seed)
    for image, known in claims:
        if len(known) < size:
            continue
        chosen, place = rng.sample(known, size), rng.randrange(size)
        false = chosen[place]
        others = [claim.remark if kind == OWN else claim.true for claim in chosen]
        sentences = (*others[:place], false.false, *others[place + 1 :])
        question = false.question if kind == OWN else " ".join(claim.question for claim in chosen)
        yield Case(image, question, sentences, place, false.true)


async def measured(
    model: str, claims: Sequence[tuple[bytes, list[Claim]]], args: argparse.Namespace
) -> list[dict[str, Any]]:
    engine = Engine(Settings(model=model, isolation="inline"), Metrics(CollectorRegistry()))
    await engine.start()
    rows = []
    for kind in (OWN, SEVERAL):
        for size in args.sentences:
            made = [*cases(claims, kind, size, args.seed)]
            pairs = [(await contributions(engine, case), await contributions(engine, case.control())) for case in made]
            found = [
                (case.place, false, true) for case, (false, true) in zip(made, pairs, strict=True) if false and true
            ]
            rows.append(row(kind, size, found))
    await engine.close()
    return rows


async def contributions(engine: Engine, case: Case) -> Contributions | None:
    """Returns what each sentence adds, by BY; None where other sentences are found than those that were put in."""
    item = Item(case.question, (" ".join(case.sentences),), (InlineImage(case.image),))
    response = await engine.score(ScoreRequest("faith", (item,), options=Options(explain=Explain.SENTENCES)))
    result = response.results[0]
    assert isinstance(result, Scored), result
    parts = result.explain or ()
    if len(parts) != len(case.sentences):
        return None
    added = [dict(zip(DIMENSIONS, part.logits or (), strict=True)) | {"reward": part.reward} for part in parts]
    return {by: [of_one[by] or 0.0 for of_one in added] for by in BY}


def row(kind: str, size: int, found: Sequence[tuple[int, Contributions, Contributions]]) -> dict[str, Any]:
    facts: dict[str, Any] = {"set": kind, "sentences": size, "n": len(found), "chance": 1 / size}
    for by in BY:
        named = sum(min(false[by]) == false[by][place] for place, false, _ in found)
        facts[by] = named / len(found)
        facts[f"{by}_low"], facts[f"{by}_high"] = wilson(named, len(found))
        facts[f"{by}_control"] = sum(min(true[by]) == true[by][place] for place, _, true in found) / len(found)
        facts[f"{by}_lower"] = sum(false[by][place] < true[by][place] for place, false, true in found) / len(found)
    return facts


if __name__ == "__main__":
    main()
