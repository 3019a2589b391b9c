"""The VLM backend beside plain transformers: one model of random weights, the same triples, in one run.

(a) plain, one sequence after the other; (b) plain, padded batches at the best of several sizes; (c) ours. Every image
and question is new to (c), so that nothing is answered from its caches. The ceiling is what the token counts allow
over (a) and (b). The last line is JSON.

With --save DIR nothing is measured: such a model becomes a folder that serves, for `python -m loadtest.model DIR`.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from loadtest.bodies import VOCABULARY
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from medreward.artifacts.repository import MANIFEST_FILE
from medreward.artifacts.toml import toml
from medreward.backends.base import Group, ModelImage
from medreward.backends.torch_vlm.backbone import Backbone
from medreward.backends.torch_vlm.backend import TorchVlmBackend
from medreward.backends.torch_vlm.heads import TrainedHeads
from medreward.backends.torch_vlm.linears import pack_linears
from medreward.types import DIMENSIONS

IMAGE: Final = 5  # the placeholder's id
UNKNOWN: Final = "<unknown>"
CONTROL: Final = {UNKNOWN: 0, "<user>": 1, "<assistant>": 2, "<end>": 3, "<image>": IMAGE}
HEAD: Final = "reward_head.safetensors"
TOKENIZER: Final = "tokenizer.json"
WORDS: Final = (100, 900)  # ids of texts
QUESTION: Final = 32
PIXELS: Final = 28  # a side of an image token
SIZES: Final = (4, 8, 16, 32)  # of plain batches
BATCH_COST: Final = 16_384  # what the service gives a backend at once by default
GROUP_SIZES: Final = (1, 4, 8, 16)
IMAGE_TOKENS: Final = (256, 1024)
ANSWERS: Final = (32, 256)

Contender = tuple[str, int]  # a, b or c, and the size of a plain batch

#: Qwen2.5-VL: its 7B member, small ones that no machine is too small for, and one of as many layers as the large have.
SHAPES: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "tiny": (
        {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4}
        | {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1024},
        {"depth": 2, "hidden_size": 128, "num_heads": 4, "intermediate_size": 256, "fullatt_block_indexes": [1]},
    ),
    "small": (
        {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12}
        | {"num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 1024},
        {"depth": 2, "hidden_size": 128, "num_heads": 4, "intermediate_size": 256, "fullatt_block_indexes": [1]},
    ),
    "deep": (
        {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 28}
        | {"num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 1024},
        {"depth": 8, "hidden_size": 128, "num_heads": 4, "intermediate_size": 256, "fullatt_block_indexes": [3, 7]},
    ),
    "7b": (
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
        | {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
        {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420},
    ),
}


@dataclass
class Cell:
    group: int
    image_tokens: int
    answer: int
    ceiling: float
    triples_s: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)
    batch: int = 0  # the best plain one
    ratio: float = 0.0  # (c) over (b)
    of_ceiling: float = 0.0
    of_matmul: float = 0.0


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    if args.save:
        write_folder(args.save, args.shape, args.image_tokens[0])
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    matmul = matmul_rate(args.device)
    cells = []
    for tokens in args.image_tokens:
        backend = random_backend(args.shape, args.device, tokens, args.deterministic)
        for answer in args.answers:
            for size in args.groups:
                cells.append(measured(backend, size, answer, args, matmul))
                print(line(cells[-1]), flush=True)
    facts = {"device": device_name(args.device), "shape": args.shape, "threads": torch.get_num_threads()}
    print(json.dumps(facts | {"matmul_tflops": matmul / 1e12, "cells": [asdict(cell) for cell in cells]}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, metavar="DIR")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--deterministic", action="store_true", help="(c) as --deterministic serves it")
    parser.add_argument("--triples", type=int, default=32, help="of a round, in every cell")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--groups", type=int, nargs="+", default=GROUP_SIZES)
    parser.add_argument("--image-tokens", type=int, nargs="+", default=IMAGE_TOKENS)
    parser.add_argument("--answers", type=int, nargs="+", default=ANSWERS)
    return parser.parse_args()


def random_backend(shape: str, device: str, image_tokens: int, alone: bool) -> TorchVlmBackend:
    side = side_of(image_tokens)
    backbone = Backbone(random_model(shape, device), image_processor(side), (side, side), alone=alone)
    assert backbone.image_tokens == image_tokens
    with TemporaryDirectory() as folder:
        save_file(random_head(backbone.width), Path(folder) / HEAD)
        heads = TrainedHeads(Path(folder) / HEAD, backbone.width, len(DIMENSIONS), backbone.device)
    pack_linears(backbone.base)
    return TorchVlmBackend(backbone, heads)


def random_model(shape: str, device: str) -> Any:
    text, vision = SHAPES[shape]
    width = text["hidden_size"]
    half = width // text["num_attention_heads"] // 2
    section = [half // 4, half * 3 // 8, half - half // 4 - half * 3 // 8]
    rope = {"rope_type": "default", "mrope_section": section, "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**vision, "out_hidden_size": width},
        image_token_id=IMAGE,
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        return AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")


def random_head(width: int) -> dict[str, Tensor]:
    return {"weight": torch.randn(len(DIMENSIONS), width), "bias": torch.zeros(len(DIMENSIONS))}


def image_processor(side: int) -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(max_pixels=side * side)


def side_of(image_tokens: int) -> int:
    return PIXELS * int(image_tokens**0.5)


def write_folder(folder: Path, shape: str, image_tokens: int) -> None:
    """A model of random weights with a tokenizer of words and a manifest."""
    model, side = random_model(shape, "cpu"), side_of(image_tokens)
    model.save_pretrained(folder)
    image_processor(side).save_pretrained(folder)
    save_file(random_head(model.config.get_text_config().hidden_size), folder / HEAD)
    words = Tokenizer(WordLevel({**CONTROL, **dict(zip(VOCABULARY.split(), range(*WORDS), strict=False))}, UNKNOWN))
    words.pre_tokenizer = Whitespace()
    words.add_special_tokens([*CONTROL])
    words.save(str(folder / TOKENIZER))
    tables: dict[str, dict[str, Any]] = {
        "image": {"width": side, "height": side},
        "text": {
            "tokenizer": TOKENIZER,
            "prompt": ["<user>", "{image}", "{question}"],
            "answer": ["<assistant>", "{response}", "<end>"],
            "max_tokens": 2048,
        },
        "vlm": {"image": ["<image>"], "head": HEAD},
        "weights": {"overall": 1.0},
        **{f"calibration.{dimension}": {"median": 0.0, "scale": 1.0} for dimension in DIMENSIONS},
        "files": {file.name: sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())},
    }
    about = {"name": f"random-{shape}", "version": "0.1.0", "runtime": "torch_vlm", "evidence": "none"}
    written = toml(about | {"license": "Apache-2.0", "provenance": "random weights"}, tables)
    (folder / MANIFEST_FILE).write_text(written, "utf-8")


@torch.inference_mode()
def measured(backend: TorchVlmBackend, size: int, answer: int, args: argparse.Namespace, matmul: float) -> Cell:
    rng = np.random.default_rng(size * answer)
    count = max(1, args.triples // size)
    rounds = [[new_group(rng, backend, size, answer) for _ in range(count)] for _ in range(args.rounds + 1)]
    prompts = sum(len(g.prompt) - 1 + backend.backbone.image_tokens for g in rounds[-1])
    answers = sum(len(ids) for g in rounds[-1] for ids in g.answers)
    cell = Cell(size, backend.backbone.image_tokens, answer, (prompts * size + answers) / (prompts + answers))

    def plain(batch: int) -> Callable[[Sequence[Group]], None]:
        def run(groups: Sequence[Group]) -> None:
            rows = [([g.image], g.prompt, ids) for g in groups for ids in g.answers if g.image]
            rows.sort(key=lambda row: len(row[1]) + len(row[2]))  # like lengths together: the best that padding can do
            for start in range(0, len(rows), batch):
                images, prompts, answers = zip(*rows[start : start + batch], strict=True)
                backend.heads(backend.backbone.whole(images, prompts, answers)[:, None]).cpu()

        return run

    def ours(groups: Sequence[Group]) -> None:
        for batch in batches(backend, groups):
            backend.score(batch)

    triples = count * size
    contenders = {("a", 1): plain(1), **{("b", batch): plain(batch) for batch in SIZES if batch <= triples}}
    for (name, batch), (seconds, peak) in timed({**contenders, ("c", 0): ours}, rounds, args.device).items():
        if triples / seconds > cell.triples_s.get(name, 0):
            cell.triples_s[name], cell.peak_mib[name] = triples / seconds, peak
            cell.batch = batch if name == "b" else cell.batch
    cell.ratio = cell.triples_s["c"] / cell.triples_s.get("b", cell.triples_s["a"])
    cell.of_ceiling = cell.ratio / cell.ceiling
    cell.of_matmul = flops(backend, prompts + answers, count) * cell.triples_s["c"] / triples / matmul
    return cell


def new_group(rng: np.random.Generator, backend: TorchVlmBackend, size: int, answer: int) -> Group:
    """Answers of half to one and a half times the length."""
    pixels = rng.integers(0, 256, (*backend.backbone.size, 3), dtype=np.uint8)
    prompt = [IMAGE, *map(int, rng.integers(*WORDS, QUESTION))]
    lengths = rng.integers(answer // 2, answer * 3 // 2 + 1, size)
    answers = [[int(i) for i in rng.integers(*WORDS, length)] for length in lengths]
    return Group(ModelImage(rng.bytes(16).hex(), pixels), prompt, answers)


def batches(backend: TorchVlmBackend, groups: Sequence[Group]) -> Iterator[list[Group]]:
    """As the service would give them."""
    batch: list[Group] = []
    cost, side = 0, backend.backbone.size[0]
    for group in groups:
        own = backend.cost.group(len(group.prompt), side * side) + sum(len(ids) for ids in group.answers)
        if batch and cost + own > BATCH_COST:
            yield batch
            batch, cost = [], 0
        batch.append(group)
        cost += own
    yield batch


def timed(
    contenders: Mapping[Contender, Callable[[Sequence[Group]], None]], rounds: Sequence[Sequence[Group]], device: str
) -> dict[Contender, tuple[float, float]]:
    """Median seconds of a round, and the peak of memory in MiB; those without the memory are left out. They take turns,
    so that a moment when the machine is slow meets all of them, and the first round only warms up.
    """
    seconds: dict[Contender, list[float]] = {name: [] for name in contenders}
    peaks = dict.fromkeys(contenders, 0.0)
    for groups in rounds:
        for name in [*seconds]:
            forget_peak(device)
            started = time.perf_counter()
            try:
                contenders[name](groups)  # its results are on the CPU when it returns
            except torch.OutOfMemoryError:
                del seconds[name]
                continue
            seconds[name].append(time.perf_counter() - started)
            peaks[name] = max(peaks[name], peak_mib(device))
    return {name: (statistics.median(taken[1:]), peaks[name]) for name, taken in seconds.items()}


def forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib(device: str) -> float:
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated()) / 2**20
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(peak[1]) / 1024 if peak else 0.0


def flops(backend: TorchVlmBackend, tokens: int, images: int) -> float:
    """Of the matrix products with weights, which is nearly all at these lengths."""
    base: Any = backend.backbone.base
    layers = sum(w.numel() for w in base.language_model.layers.parameters() if w.dim() > 1)
    tower = sum(w.numel() for w in base.visual.blocks.parameters() if w.dim() > 1)
    return 2.0 * float(layers * tokens + tower * images * 4 * backend.backbone.image_tokens)


def matmul_rate(device: str) -> float:
    """Floating-point operations a second of one large product, in the type that the model runs in."""
    side, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        float((one @ other)[0, 0])
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def line(cell: Cell) -> str:
    speeds = "  ".join(f"{name} {speed:8.2f}/s" for name, speed in cell.triples_s.items())
    peaks = " ".join(f"{name} {peak:.0f}" for name, peak in cell.peak_mib.items())
    return (
        f"n {cell.group:2}  image {cell.image_tokens:4}  answer {cell.answer:3}  {speeds} (b in {cell.batch}s)  "
        f"c/b {cell.ratio:5.2f} of {cell.ceiling:5.2f} = {cell.of_ceiling:4.0%}  "
        f"matmul {cell.of_matmul:4.0%}  peak MiB {peaks}"
    )


if __name__ == "__main__":
    main()
