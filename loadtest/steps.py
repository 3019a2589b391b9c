"""What `steps` cost: a response alone, with more and more steps, and its cut texts as responses, in one run.

Each request goes through the engine in this process and has an image, a question and an answer that are new. MODEL is
a bundled name or a folder; with --shape, a VLM of random weights as loadtest/vlm.py makes them. Requests run one after
the other and take turns; each ratio is that of a request and the response alone of the same round, of the processors'
time, which other work on the machine touches less than the clock. The last line is JSON.
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

from loadtest.bodies import jpegs
from loadtest.explain import sentence
from prometheus_client import CollectorRegistry

from medreward.engine.engine import Engine
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import InlineImage, Item, Options, Scored, ScoreRequest

ALONE = "alone"
APART = "cut texts apart"


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
    print(f"{'':18} {'clock':>9} {'processors':>11} {'/ alone':>8}  (lowest to highest)")
    facts = {}
    for name in clock:
        ratios = sorted(a / b for a, b in zip(processors[name], processors[ALONE], strict=True))
        middle = statistics.median(ratios)
        ms = [1000 * statistics.median(taken[name]) for taken in (clock, processors)]
        print(f"{name:18} {ms[0]:6.0f} ms {ms[1]:8.0f} ms {middle:8.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        facts[name] = [round(ratio, 3) for ratio in (middle, ratios[0], ratios[-1])]
    about = {"benchmark": "steps", "model": args.shape or args.model, "words": args.words, "question": args.question}
    print(json.dumps({**about, "image_tokens": args.image_tokens, "rounds": args.rounds, "over_alone": facts}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="medreward-mini")
    parser.add_argument("--shape", choices=("tiny", "small", "deep", "7b"), help="a VLM of random weights, as a model")
    parser.add_argument("--image-tokens", type=int, default=1024, help="of that VLM")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--words", type=int, default=1024, help="in the answer: each is a token of such a VLM")
    parser.add_argument("--question", type=int, default=768, help="words")
    parser.add_argument(
        "--apart", type=int, default=16, help="cut texts that are sent as responses of one group; 0: none"
    )
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


async def measured(model: str, args: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns the seconds of each kind of request, by round, on the clock and of the processors. The first warms up."""
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
    kinds = {
        ALONE: 0,
        **{f"{steps} steps": steps for steps in args.steps},
        **({APART: args.apart} if args.apart else {}),
    }
    images = iter(jpegs(len(kinds) * (args.rounds + 1)))
    clock: dict[str, list[float]] = {kind: [] for kind in kinds}
    processors: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(args.rounds + 1):
        for kind, steps in kinds.items():
            words = sentence(rng, args.words).split()
            cut = [" ".join(words[: len(words) * (place + 1) // steps]) for place in range(steps)]
            responses = (" ".join(words), *cut) if kind == APART else (" ".join(words),)
            ends = tuple(map(len, cut)) if steps and kind != APART else None
            options = Options(steps=ends) if ends else Options()
            item = Item(sentence(rng, args.question), responses, (InlineImage(next(images)),))
            started, used = time.perf_counter(), time.process_time()
            response = await engine.score(ScoreRequest("steps", (item,), options=options, deadline_s=600))
            clock[kind].append(time.perf_counter() - started)
            processors[kind].append(time.process_time() - used)
            first = response.results[0]
            assert isinstance(first, Scored), first
            assert len(first.steps or ()) == len(ends or ())
    await engine.close()
    for taken in (*clock.values(), *processors.values()):
        del taken[0]
    return clock, processors


if __name__ == "__main__":
    main()
