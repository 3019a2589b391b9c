"""What `explain: sentences` costs: one response with and without it, and its answers as a group, in one run.

Each request goes through the engine in this process, has an image and a question that are new, and an answer of new
sentences. MODEL is a bundled name or a folder; with --shape, a VLM of random weights as loadtest/vlm.py makes them.
The ratio is that of two requests which run one after the other. The last line is JSON.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from loadtest.bodies import VOCABULARY, jpegs
from prometheus_client import CollectorRegistry

from medreward.engine.engine import Engine
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import Explain, InlineImage, Item, Options, Scored, ScoreRequest

WORDS = VOCABULARY.split()
PLAIN, EXPLAIN, GROUP = "plain", "explain", "group"


def main() -> None:
    args = arguments()
    with TemporaryDirectory() as folder:
        model = args.model
        if args.shape:
            import torch  # only where a VLM is made
            from loadtest.vlm import write_folder

            torch.manual_seed(0)
            model = f"{folder}/model"
            Path(model).mkdir()
            write_folder(Path(model), args.shape, args.image_tokens)
        seconds = asyncio.run(measured(model, args))
    for name, taken in seconds.items():
        low, high = 1000 * min(taken), 1000 * max(taken)
        print(f"{name:8} {1000 * statistics.median(taken):8.1f} ms ({low:.1f} to {high:.1f})")
    facts = {
        "benchmark": "explain",
        "model": args.shape or args.model,
        "sentences": args.sentences,
        "words": args.words,
    }
    for name in (EXPLAIN, GROUP):
        ratios = sorted(a / b for a, b in zip(seconds[name], seconds[PLAIN], strict=True))
        middle = statistics.median(ratios)
        print(f"{name} / plain {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        facts |= {f"{name}_ratio": round(middle, 3), f"{name}_lowest": ratios[0], f"{name}_highest": ratios[-1]}
    print(json.dumps(facts | {"image_tokens": args.image_tokens if args.shape else None, "rounds": args.rounds}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="medreward-mini")
    parser.add_argument("--shape", choices=("tiny", "small", "deep", "7b"), help="a VLM of random weights, as a model")
    parser.add_argument("--image-tokens", type=int, default=256, help="of that VLM")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--sentences", type=int, default=6)
    parser.add_argument("--words", type=int, default=12, help="in a sentence")
    parser.add_argument("--question", type=int, default=32, help="words")
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


async def measured(model: str, args: argparse.Namespace) -> dict[str, list[float]]:
    """Returns the seconds of each kind of request, by round. They take turns, and the first round warms up."""
    settings = Settings(
        model=model,
        device=args.device,
        threads=args.threads,
        isolation="inline",
        score_cache_bytes=0,
        deadline_seconds=600,
    )
    engine = Engine(settings, Metrics(CollectorRegistry()))
    await engine.start()
    rng = random.Random(1)
    images = iter(jpegs(3 * (args.rounds + 1)))
    seconds: dict[str, list[float]] = {PLAIN: [], EXPLAIN: [], GROUP: []}
    for _ in range(args.rounds + 1):
        for kind, taken in seconds.items():
            sentences = [sentence(rng, args.words) for _ in range(args.sentences)]
            responses = [" ".join(sentences)]
            if kind == GROUP:
                responses += [" ".join(sentences[:k] + sentences[k + 1 :]) for k in range(args.sentences)]
            item = Item(sentence(rng, args.question), tuple(responses), (InlineImage(next(images)),))
            explain = Explain.SENTENCES if kind == EXPLAIN else Explain.NONE
            request = ScoreRequest("explain", (item,), options=Options(explain=explain), deadline_s=600)
            started = time.perf_counter()
            response = await engine.score(request)
            taken.append(time.perf_counter() - started)
            first = response.results[0]
            assert isinstance(first, Scored), first
            assert kind != EXPLAIN or len(first.explain or ()) == args.sentences
    await engine.close()
    return {kind: taken[1:] for kind, taken in seconds.items()}


def sentence(rng: random.Random, words: int) -> str:
    return f"{' '.join(rng.choice(WORDS) for _ in range(words)).capitalize()}."


if __name__ == "__main__":
    main()
