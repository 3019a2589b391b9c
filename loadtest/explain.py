"""What `explain: sentences` costs: one response with and without it, and its answers as a group, in one run.

Each request goes through the engine in this process, has an image and a question that are new, and an answer of new
sentences. MODEL is a bundled name or a folder; with --shape, a VLM of random weights as loadtest/vlm.py makes them.
The ratios are of requests that run one after the other: of the time on the clock, and of the processors' time, which
other work on the machine touches less (with --threads 1, for threads that wait for each other use it too). The last
line is JSON.
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
from typing import Any

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
        clock, processors = asyncio.run(measured(model, args))
    for name, taken in clock.items():
        low, high = 1000 * min(taken), 1000 * max(taken)
        print(f"{name:8} {1000 * statistics.median(taken):8.1f} ms ({low:.1f} to {high:.1f})")
    facts: dict[str, Any] = {
        "benchmark": "explain",
        "model": args.shape or args.model,
        "sentences": args.sentences,
        "words": args.words,
    }
    for name in (EXPLAIN, GROUP):
        for time_of, seconds in (("clock", clock), ("processors", processors)):
            ratios = sorted(a / b for a, b in zip(seconds[name], seconds[PLAIN], strict=True))
            middle = statistics.median(ratios)
            print(f"{name} / plain, {time_of}: {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
            facts[f"{name}_{time_of}"] = [round(ratio, 3) for ratio in (middle, ratios[0], ratios[-1])]
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


async def measured(model: str, args: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns the seconds of each kind of request, by round, on the clock and of the processors.

    The kinds take turns, and the first round warms up.
    """
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
    clock: dict[str, list[float]] = {PLAIN: [], EXPLAIN: [], GROUP: []}
    processors: dict[str, list[float]] = {kind: [] for kind in clock}
    for _ in range(args.rounds + 1):
        for kind in clock:
            sentences = [sentence(rng, args.words) for _ in range(args.sentences)]
            responses = [" ".join(sentences)]
            if kind == GROUP:
                responses += [" ".join(sentences[:k] + sentences[k + 1 :]) for k in range(args.sentences)]
            item = Item(sentence(rng, args.question), tuple(responses), (InlineImage(next(images)),))
            explain = Explain.SENTENCES if kind == EXPLAIN else Explain.NONE
            request = ScoreRequest("explain", (item,), options=Options(explain=explain), deadline_s=600)
            started, used = time.perf_counter(), time.process_time()
            response = await engine.score(request)
            clock[kind].append(time.perf_counter() - started)
            processors[kind].append(time.process_time() - used)
            first = response.results[0]
            assert isinstance(first, Scored), first
            assert kind != EXPLAIN or len(first.explain or ()) == args.sentences
    await engine.close()
    for taken in (*clock.values(), *processors.values()):
        del taken[0]
    return clock, processors


def sentence(rng: random.Random, words: int) -> str:
    return f"{' '.join(rng.choice(WORDS) for _ in range(words)).capitalize()}."


if __name__ == "__main__":
    main()
