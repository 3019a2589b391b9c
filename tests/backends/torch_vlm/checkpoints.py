"""Checkpoints of the real architectures with a few thousand random weights, complete with heads and manifest."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from medreward.types import DIMENSIONS

CONTROL = ["<unk>", "<pad>", "<s>", "</s>", "<user>", "<assistant>", "<image>", "<vision>", "</vision>"]
WORDS = "the a no left right lung heart fracture effusion opacity normal enlarged small large of in is there ? . , yes"
TOKENS = {token: id_ for id_, token in enumerate([*CONTROL, *WORDS.split()])}
VOCABULARY = 64
IMAGE = TOKENS["<image>"]
SIDE = 56

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,  # so that every layer shows in the logits
    "pad_token_id": TOKENS["<pad>"],
    "bos_token_id": TOKENS["<s>"],
    "eos_token_id": TOKENS["</s>"],
}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass(frozen=True)
class Family:
    config: Callable[[], Any]
    image_processor: Callable[[], Any]
    image_tokens: int
    image: Sequence[str] = ("<image>",)  # the pieces of the template
    beside: Sequence[str] = field(default=())  # what the family's processor gives the model beside pixels


def qwen2_5_vl() -> Any:
    mrope = {"rope_type": "default", "type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    return transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": mrope},
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 48,
            "out_hidden_size": 64,
            "patch_size": 7,
            "window_size": 28,
            "fullatt_block_indexes": [2],
            "initializer_range": 0.2,
        },
        image_token_id=IMAGE,
        vision_start_token_id=TOKENS["<vision>"],
        vision_end_token_id=TOKENS["</vision>"],
    )


def qwen_pixels() -> Any:
    return Qwen2VLImageProcessorPil(patch_size=7, min_pixels=14 * 14, max_pixels=SIDE * SIDE)


def llava() -> Any:
    return transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**TEXT),
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=SIDE, patch_size=14, initializer_range=0.2),
        image_token_id=IMAGE,
    )


def llava_pixels() -> Any:
    return LlavaImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


FAMILIES = {
    "qwen2_5_vl": Family(qwen2_5_vl, qwen_pixels, 16, ("<vision>", "<image>", "</vision>"), ["mm_token_type_ids"]),
    "llava": Family(llava, llava_pixels, 16),
}


def write_checkpoint(folder: Path, family: str, seed: int = 0) -> None:
    kind = FAMILIES[family]
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.AutoModelForImageTextToText.from_config(kind.config()).save_pretrained(folder)
        head = {"weight": torch.randn(2, 6, 64) * 0.2, "bias": torch.randn(2, 6)}
    save_file(head, folder / "reward_head.safetensors")
    kind.image_processor().save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    write_manifest(folder, family)


def tokenizer() -> Tokenizer:
    words = Tokenizer(WordLevel(TOKENS, unk_token="<unk>"))  # noqa: S106
    words.pre_tokenizer = Whitespace()
    words.add_special_tokens(CONTROL)
    return words


def write_manifest(folder: Path, family: str) -> None:
    """With the digest of every file that is there now."""
    files = sorted(path for path in folder.iterdir() if path.name != "model.toml")
    digests = "\n".join(f'"{file.name}" = "{hashlib.sha256(file.read_bytes()).hexdigest()}"' for file in files)
    calibration = "\n".join(f"{name} = {{ median = 0.0, scale = 1.0 }}" for name in DIMENSIONS)
    (folder / "model.toml").write_text(
        f"""
name = "tiny-{family.replace("_", "-")}"
version = "0.1.0"
runtime = "torch_vlm"
evidence = "none"
license = "Apache-2.0"
provenance = "random weights"
[image]
width = {SIDE}
height = {SIDE}
[text]
tokenizer = "tokenizer.json"
prompt = ["<s>", "<user>", "{{image}}", "{{question}}"]
answer = ["<assistant>", "{{response}}", "</s>"]
max_tokens = 512
[vlm]
image = [{", ".join(f'"{piece}"' for piece in FAMILIES[family].image)}]
[weights]
overall = 1.0
[calibration]
{calibration}
[files]
{digests}
"""
    )


class Plain:
    """The same checkpoint in transformers' own hands: one whole sequence a forward, and the head applied to its end."""

    def __init__(self, folder: Path, family: str) -> None:
        self.kind = FAMILIES[family]
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval().model
        self.image_processor = self.kind.image_processor()
        self.head = load_file(folder / "reward_head.safetensors")

    @torch.inference_mode()
    def logits(self, pixels: np.ndarray[Any, Any] | None, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
        expanded = [id_ for token in prompt for id_ in [token] * (self.kind.image_tokens if token == IMAGE else 1)]
        ids = torch.tensor([[*expanded, *answer]])
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if pixels is not None:
            inputs |= self.image_processor(images=Image.fromarray(pixels), return_tensors="pt")
            inputs |= dict.fromkeys(self.kind.beside, (ids == IMAGE).int())
        state = self.model(**inputs).last_hidden_state[0, -1]
        logits: Tensor = self.head["weight"] @ state + self.head["bias"]
        return logits
