"""Long answers to a long prompt on the VLM backend: what memory they hold, and how their time grows.

A model of random weights scores one answer after the other, each new, behind a prompt with an image that is kept after
the first; another question behind the same history is timed. A line for each tenth of the answers says what memory the
process holds; then answers of other lengths are timed. The last line is JSON.
"""

import argparse
import gc
import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from loadtest import vlm

from medreward.backends.base import Group, ModelImage

IMAGE_TOKENS: Final = 64
QUESTION: Final = 32  # tokens in which another question differs
#: Small, so that the states of a long prompt and not its weights take the memory.
SHAPE: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 1024,
    "max_position_embeddings": 32_768,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=4096, help="of each answer")
    parser.add_argument("--prompt", type=int, default=16_384, help="tokens of the prompt")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    vlm.SHAPES["long"] = SHAPE, vlm.SHAPES["tiny"][1]
    backend = vlm.random_backend("long", "cpu", IMAGE_TOKENS, alone=False)
    rng = np.random.default_rng(0)
    side = vlm.side_of(IMAGE_TOKENS)
    image = ModelImage("a", rng.integers(0, 256, (side, side, 3), np.uint8))
    prompt = [vlm.IMAGE, *map(int, rng.integers(*vlm.WORDS, args.prompt))]

    def seconds(tokens: int, asked: list[int] = prompt) -> float:
        answer = [int(word) for word in rng.integers(*vlm.WORDS, tokens)]
        started = time.process_time()
        backend.score([Group(image, asked, [answer])])
        return time.process_time() - started

    first = seconds(1)
    other = seconds(1, [*prompt[:-QUESTION], *map(int, rng.integers(*vlm.WORDS, QUESTION))])
    held: list[float] = []
    taken: list[float] = []
    for number in range(args.answers):
        taken.append(seconds(args.tokens))
        if not (number + 1) % max(1, args.answers // 10):
            gc.collect()
            held.append(mib("VmRSS"))
            print(
                f"{number + 1:4} answers  {held[-1]:7.1f} MiB held  {statistics.median(taken):.2f} s each", flush=True
            )
    by_length = {tokens: statistics.median(seconds(tokens) for _ in range(3)) for tokens in (512, 1024, 2048, 4096)}
    facts = {
        "prompt": args.prompt,
        "tokens": args.tokens,
        "prompt_s": first,
        "other_question_s": other,
        "held_mib": held,
        "peak_mib": mib("VmHWM"),
        "states_mib": backend.prefix_bytes / 2**20,
        "answer_s": by_length,
    }
    print(json.dumps(facts))


def mib(name: str) -> float:
    """Returns a figure of this process's memory, as the kernel has it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
