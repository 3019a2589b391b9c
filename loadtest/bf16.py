"""What bf16 does to the logits of VLM folders: ours against plain transformers in the same type, beside the noise that
the type itself has, which is plain bf16 against plain fp32 of the same weights.

Differences are in spreads: standard deviations of a logit among the answers to one image and question. Texts are random
ids, so folders of random weights are meant; `medreward doctor --parity` looks at any. The last line is JSON.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medreward.artifacts.manifest import Manifest, read_manifest
from medreward.artifacts.repository import MANIFEST_FILE
from medreward.backends.base import Group, Logits, ModelImage
from medreward.backends.torch_vlm.backend import TorchVlmBackend, open_torch_vlm
from medreward.backends.torch_vlm.reference import Compared, compare, orders, spread
from medreward.encoding.text import FileTokenizer
from medreward.settings import Settings

QUESTION, SHORTEST, LONGEST = 16, 8, 200  # tokens


def main() -> None:
    args = arguments()
    rows = []
    for folder in args.folders:
        rows.append({"folder": folder.name, **measured(folder, args)})
        print(line(rows[-1]), flush=True)
    print(json.dumps({"device": args.device, "threads": torch.get_num_threads(), "folders": rows}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--groups", type=int, default=8, help="of answers to one image and question")
    parser.add_argument("--answers", type=int, default=8, help="in a group")
    return parser.parse_args()


def measured(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    manifest = read_manifest(folder / MANIFEST_FILE)
    coarse = opened(folder, manifest, args, "bf16")
    groups = random_groups(coarse, FileTokenizer(folder / (manifest.text.tokenizer or "")), manifest, args)
    found = compare(coarse, groups)
    company = [
        Compared(logits, each.ours)
        for again in in_other_company(coarse, groups)
        for logits, each in zip(again, found, strict=True)
    ]
    fine = opened(folder, manifest, args, "fp32")
    with torch.inference_mode():
        for weights in fine.backbone.base.parameters():
            weights.copy_(weights.bfloat16())  # what rounding them costs is another matter
    exact = [each.plain for each in compare(fine, groups)]
    noise = [Compared(each.plain, logits) for each, logits in zip(found, exact, strict=True)]
    ours = [Compared(each.ours, logits) for each, logits in zip(found, exact, strict=True)]
    unit = spread(noise)
    facts: dict[str, float] = {"spread": unit, "pairs": orders(found).pairs}
    for name, pairs in (("ours", found), ("noise", noise), ("ours_fp32", ours), ("company", company)):
        differences = np.concatenate([np.abs(each.ours - each.plain).ravel() for each in pairs]) / unit
        facts[f"{name}_max"] = float(differences.max())
        facts[f"{name}_p99"] = float(np.quantile(differences, 0.99))
        facts[f"{name}_rms"] = float(np.sqrt(np.mean(differences**2)))
        facts[f"{name}_flips"] = orders(pairs).share
    return facts


def line(row: Mapping[str, str | float]) -> str:
    return "  ".join(
        f"{name} {fact:.4f}" if isinstance(fact, float) else f"{name} {fact}" for name, fact in row.items()
    )


def opened(folder: Path, manifest: Manifest, args: argparse.Namespace, dtype: str) -> TorchVlmBackend:
    settings = Settings(device=args.device, threads=args.threads, feature_cache_bytes=0, dtype=dtype)
    return open_torch_vlm(folder, manifest, settings)


def random_groups(
    backend: TorchVlmBackend, tokenizer: FileTokenizer, manifest: Manifest, args: argparse.Namespace
) -> list[Group]:
    rng = np.random.default_rng(1)
    control = {*tokenizer.control_tokens.values()}
    config: Any = backend.backbone.base.config
    texts = [id_ for id_ in range(config.get_text_config().vocab_size) if id_ not in control]

    def ids(count: int) -> list[int]:
        return [int(id_) for id_ in rng.choice(texts, count)]

    assert manifest.vlm is not None
    picture = [tokenizer.control_tokens[piece] for piece in manifest.vlm.image]
    made = []
    for _ in range(args.groups):
        pixels = rng.integers(0, 256, (*backend.backbone.size, 3), dtype=np.uint8)
        answers = [ids(int(length)) for length in rng.integers(SHORTEST, LONGEST + 1, args.answers)]
        made.append(Group(ModelImage(rng.bytes(16).hex(), pixels), [*picture, *ids(QUESTION)], answers))
    return made


def in_other_company(backend: TorchVlmBackend, groups: Sequence[Group]) -> Iterator[list[Logits]]:
    """Each answer by itself, off kept states and from nothing, and all backwards in one batch from nothing."""
    for forgets in (False, True):
        yield [np.concatenate([alone(backend, group, answer, forgets) for answer in group.answers]) for group in groups]
    backend.release()
    backwards = [Group(group.image, group.prompt, group.answers[::-1]) for group in groups[::-1]]
    yield [logits[::-1] for logits in backend.score(backwards)[::-1]]


def alone(backend: TorchVlmBackend, group: Group, answer: Sequence[int], forgets: bool) -> Logits:
    if forgets:
        backend.release()
    return backend.score([Group(group.image, group.prompt, [answer])])[0]


if __name__ == "__main__":
    main()
