"""Small experts on one small base, as `medreward serve` takes them."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from backends.torch_vlm import checkpoints
from backends.torch_vlm.checkpoints import SIDE, TOKENS, write_checkpoint, write_manifest
from medreward.backends.base import Group, ModelImage
from medreward.lab.merging.merge import Merged, Named, merge
from medreward.lab.merging.methods import How, Method
from medreward.types import DIMENSIONS

FAMILY = "llava"  # its weights have other names in files than in the loaded model
PIXELS = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
PROMPT = [TOKENS[word] for word in ("<s>", "<user>", "<image>", "is", "there", "a", "fracture", "?")]
ANSWER = [TOKENS[word] for word in ("<assistant>", "yes", ",", "a", "small", "fracture", "</s>")]
TARGETS = ["q_proj", "v_proj", "linear_1", "fc1"]
Levels = Mapping[str, tuple[float, float]]


def write_base(folder: Path) -> Path:
    write_checkpoint(folder, FAMILY)
    return folder


def write_expert(base: Path, folder: Path, seed: int, levels: Levels | None = None, **lora: Any) -> Path:
    """Writes an adapter of this seed, whose weights all do something, with its head and its base beside it."""
    shutil.copytree(base, folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(**{"target_modules": TARGETS, "r": 4, "lora_alpha": 6, **lora}, init_lora_weights=False)
        adapted = get_peft_model(model, config)
        for name, weight in adapted.named_parameters():
            if weight.requires_grad and "lora_" not in name:  # biases, which start as those of the base
                torch.nn.init.normal_(weight, std=0.1)
            elif "magnitude" in name:
                weight.data *= 1.3
        save_file(head(), folder / "reward_head.safetensors")
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return finished(folder, levels)


def write_tuned(base: Path, folder: Path, seed: int) -> Path:
    """Writes a whole checkpoint of which every weight was tuned a little."""
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tuned = {name: weight + 0.05 * torch.randn(weight.shape) for name, weight in weights.items()}
        save_file(head(), folder / "reward_head.safetensors")
    save_file(tuned, folder / "model.safetensors", {"format": "pt"})
    return finished(folder)


def head() -> dict[str, Tensor]:
    return {"weight": torch.randn(2, 6, 64) * 0.2, "bias": torch.randn(2, 6)}


def finished(folder: Path, levels: Levels | None = None) -> Path:
    """Writes the manifest of what is there; `levels` are median and scale by dimension."""
    write_manifest(folder, FAMILY)
    path = folder / "model.toml"
    text = path.read_text()
    for dimension, (median, scale) in (levels or {}).items():
        old = f"{dimension} = {{ median = 0.0, scale = 1.0 }}"
        assert old in text
        text = text.replace(old, f"{dimension} = {{ median = {median}, scale = {scale} }}")
    path.write_text(text)
    return folder


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    finished(folder)


def merged(
    base: Path, experts: Sequence[Path], out: Path, weights: Sequence[float] = (), method: str = "linear", **how: Any
) -> Merged:
    asked = How(Method(method), weights or [1.0] * len(experts), **how)
    return merge(base, [Named(folder) for folder in experts], asked, out, "merged", lambda done, of: None)


def logits(folder: Path) -> NDArray[np.float32]:
    """What the served model says of a triple with an image, for each head and dimension."""
    [found] = checkpoints.opened(folder).score([Group(ModelImage("a", PIXELS), PROMPT, [ANSWER])])
    return np.asarray(found[0])


def weights(folder: Path) -> dict[str, Tensor]:
    """What the served model computes with, its adapter in it."""
    found: dict[str, Tensor] = checkpoints.opened(folder).backbone.base.state_dict()
    return found


def levels_of(seed: int) -> dict[str, tuple[float, float]]:
    chance = np.random.default_rng(seed)
    return {name: (round(chance.normal(), 3), round(1 + chance.random(), 3)) for name in DIMENSIONS}
