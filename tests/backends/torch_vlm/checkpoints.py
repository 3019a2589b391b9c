"""Checkpoints of the real architectures with a few thousand random weights, complete with heads and manifest."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.utils import is_torchvision_available

from medreward.artifacts.manifest import read_manifest
from medreward.backends.torch_vlm.backend import TorchVlmBackend, open_torch_vlm
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.types import DIMENSIONS

CONTROL = ["<unk>", "<pad>", "<s>", "</s>", "<user>", "<assistant>", "<image>", "<vision>", "</vision>", "<video>"]
WORDS = "the a no left right lung heart fracture effusion opacity normal enlarged small large of in is there ? . , yes"
TOKENS = {token: id_ for id_, token in enumerate([*CONTROL, *WORDS.split()])}
VOCABULARY = 64
IMAGE = TOKENS["<image>"]
HEAD = 'head = "reward_head.safetensors"'
SIDE, TILE = 56, 28

WORDLEVEL = (
    "<s>{% for turn in messages %}<{{ turn.role }}>{% for part in turn.content %}{% if part.type == 'image' %}"
    "<vision><image></vision>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% if turn.role == 'assistant' %}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)

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
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}
MROPE = {"rope_type": "default", "type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
QWEN = {
    "image_token_id": IMAGE,
    "vision_start_token_id": TOKENS["<vision>"],
    "vision_end_token_id": TOKENS["</vision>"],
}
QWEN_VISION = {
    "depth": 3,
    "num_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "patch_size": 7,
    "initializer_range": 0.2,
}


@dataclass(frozen=True)
class Family:
    config: Callable[[], Any]
    image_processor: Callable[[], Any]
    image_tokens: int
    image: Sequence[str] = ("<image>",)  # the pieces of the template
    types: str | None = None  # the input that tells image tokens from text, as the family's processor makes it
    nested: bool = False  # its processor takes a list of images for each text


def qwen2_vl() -> Any:
    vision = {"depth": 2, "num_heads": 2, "embed_dim": 32, "hidden_size": 64, "patch_size": 7, "mlp_ratio": 2}
    text = {**TEXT, "rope_parameters": MROPE}
    return transformers.Qwen2VLConfig(text_config=text, vision_config={**vision, "initializer_range": 0.2}, **QWEN)


def qwen2_5_vl() -> Any:
    vision = {**QWEN_VISION, "window_size": 28, "fullatt_block_indexes": [2]}
    return transformers.Qwen2_5_VLConfig(text_config={**TEXT, "rope_parameters": MROPE}, vision_config=vision, **QWEN)


def qwen3_vl() -> Any:
    vision = {**QWEN_VISION, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    mrope = {**MROPE, "mrope_interleaved": True}
    text = {**TEXT, "head_dim": 16, "rope_parameters": mrope}
    return transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **QWEN)


def qwen_pixels() -> Any:
    return Qwen2VLImageProcessorPil(patch_size=7, min_pixels=14 * 14, max_pixels=SIDE * SIDE)


def llava() -> Any:
    vision = transformers.CLIPVisionConfig(**VISION, image_size=SIDE, patch_size=14)
    return transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**TEXT), vision_config=vision, image_token_id=IMAGE
    )


def llava_pixels() -> Any:
    return LlavaImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def llava_next() -> Any:
    return transformers.LlavaNextConfig(
        text_config=transformers.MistralConfig(**TEXT, sliding_window=40),
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=TILE, patch_size=14),
        image_grid_pinpoints=[[SIDE, SIDE]],
        image_token_index=IMAGE,
    )


def llava_next_pixels() -> Any:
    tile = {"height": TILE, "width": TILE}
    return LlavaNextImageProcessorPil(size={"shortest_edge": TILE}, crop_size=tile, image_grid_pinpoints=[[SIDE, SIDE]])


def llava_onevision() -> Any:
    return transformers.LlavaOnevisionConfig(
        text_config=transformers.Qwen2Config(**TEXT),
        vision_config=transformers.SiglipVisionConfig(**VISION, image_size=TILE, patch_size=14, vision_use_head=False),
        image_grid_pinpoints=[[SIDE, SIDE]],
        image_token_index=IMAGE,
        video_token_index=TOKENS["<video>"],
    )


def llava_onevision_pixels() -> Any:
    return LlavaOnevisionImageProcessorPil(size={"height": TILE, "width": TILE}, image_grid_pinpoints=[[SIDE, SIDE]])


def internvl() -> Any:
    return transformers.InternVLConfig(
        text_config=transformers.Qwen2Config(**TEXT),
        vision_config=transformers.InternVLVisionConfig(**VISION, image_size=SIDE, patch_size=14),
        image_token_id=IMAGE,
    )


def internvl_pixels() -> Any:
    return GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE})


def gemma3() -> Any:
    text = {**TEXT, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16}
    layers = ["sliding_attention", "full_attention"]
    return transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(**text, layer_types=layers),
        vision_config=transformers.SiglipVisionConfig(**VISION, image_size=SIDE, patch_size=14, vision_use_head=False),
        mm_tokens_per_image=4,
        image_token_id=IMAGE,
        boi_token_id=TOKENS["<vision>"],
        eoi_token_id=TOKENS["</vision>"],
    )


def gemma3_pixels() -> Any:
    return Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})


def idefics3() -> Any:
    return transformers.Idefics3Config(
        text_config=transformers.LlamaConfig(**TEXT),
        vision_config={**VISION, "image_size": TILE, "patch_size": 7},
        image_token_id=IMAGE,
        scale_factor=2,
    )


def idefics3_pixels() -> Any:
    return Idefics3ImageProcessorPil(size={"longest_edge": SIDE}, max_image_size={"longest_edge": TILE})


def smolvlm() -> Any:
    return transformers.SmolVLMConfig(
        text_config=transformers.LlamaConfig(**TEXT),
        vision_config={**VISION, "image_size": TILE, "patch_size": 7},
        image_token_id=IMAGE,
        scale_factor=2,
    )


def smolvlm_pixels() -> Any:
    return SmolVLMImageProcessorPil(size={"longest_edge": SIDE}, max_image_size={"longest_edge": TILE})


BETWEEN = ("<vision>", "<image>", "</vision>")
TILES = ("<vision>", "<image>") * 5  # four, and the whole
TYPES = "mm_token_type_ids"
DEEP = ("qwen2_5_vl", "llava")
FAMILIES = {
    "qwen2_5_vl": Family(qwen2_5_vl, qwen_pixels, 16, BETWEEN, TYPES),
    "llava": Family(llava, llava_pixels, 16),
    "qwen2_vl": Family(qwen2_vl, qwen_pixels, 16, BETWEEN, TYPES),
    "qwen3_vl": Family(qwen3_vl, qwen_pixels, 16, BETWEEN, TYPES),
    "llava_next": Family(llava_next, llava_next_pixels, 4 + 16 + 4),  # the whole, tiles, ends of rows
    "llava_onevision": Family(llava_onevision, llava_onevision_pixels, 4 + 16 + 4),
    "internvl": Family(internvl, internvl_pixels, 4, BETWEEN),
    "gemma3": Family(gemma3, gemma3_pixels, 4, BETWEEN, "token_type_ids"),
    "idefics3": Family(idefics3, idefics3_pixels, 20, TILES, nested=True),
    "smolvlm": Family(smolvlm, smolvlm_pixels, 20, TILES, nested=True),
}
REFUSED = pytest.mark.xfail(
    Version(transformers.__version__) < Version("5.18") and not is_torchvision_available(),
    reason="transformers 5.17 asks torchvision for a PIL image processor whose docstrings name TorchvisionBackend",
    raises=ConfigurationError,
    strict=False,  # what asks for no image processor passes
)
EACH_FAMILY = [pytest.param(name, marks=[REFUSED] if name in ("idefics3", "smolvlm") else []) for name in FAMILIES]


def write_checkpoint(folder: Path, family: str, seed: int = 0) -> None:
    kind = FAMILIES[family]
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForImageTextToText.from_config(kind.config())
        for weights in model.parameters():
            if weights.dim() > 1 and not weights.any():  # Gemma's projector starts from nothing
                torch.nn.init.normal_(weights)
        model.save_pretrained(folder)
        save_file(linear_head(), folder / "reward_head.safetensors")
    kind.image_processor().save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    write_manifest(folder, family)


def write_bare_checkpoint(folder: Path) -> None:
    """As transformers saves it: with a chat template, without a manifest."""
    write_checkpoint(folder, "qwen2_5_vl")
    (folder / "model.toml").unlink()
    own_tokenizer(tokenizer()).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(WORDLEVEL)


def own_tokenizer(made: Tokenizer) -> Any:
    roles = {"image_token": "<image>", "boi_token": "<vision>", "eoi_token": "</vision>"}
    roles |= {"start_image_token": "<vision>", "end_image_token": "</vision>"}
    names = {role: f"<{name}>" for role, name in (("unk_token", "unk"), ("bos_token", "s"), ("eos_token", "/s"))}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names, extra_special_tokens=roles)


def linear_head() -> dict[str, Tensor]:
    return {"weight": torch.randn(2, 6, 64) * 0.2, "bias": torch.randn(2, 6)}


def value_head(prefix: str = "v_head.summary.") -> dict[str, Tensor]:
    """As trl saves it."""
    return {f"{prefix}weight": torch.randn(1, 64) * 0.2, f"{prefix}bias": torch.randn(1)}


def tokenizer() -> Tokenizer:
    words = Tokenizer(WordLevel(TOKENS, unk_token="<unk>"))  # noqa: S106
    words.pre_tokenizer = Whitespace()
    words.add_special_tokens(CONTROL)
    return words


def write_manifest(
    folder: Path,
    family: str,
    heads: str = HEAD,
    image: Sequence[str] = (),
    dimensions: Sequence[str] = DIMENSIONS,
    size: str = f"width = {SIDE}\nheight = {SIDE}",
    max_tokens: int = 512,
) -> None:
    """With the digest of every file that is there now."""
    pieces = ", ".join(f'"{piece}"' for piece in image or FAMILIES[family].image)
    files = sorted(path for path in folder.iterdir() if path.name != "model.toml")
    digests = "\n".join(f'"{file.name}" = "{hashlib.sha256(file.read_bytes()).hexdigest()}"' for file in files)
    calibration = "\n".join(f"{name} = {{ median = 0.0, scale = 1.0 }}" for name in dimensions)
    (folder / "model.toml").write_text(
        f"""
name = "tiny-{family.replace("_", "-")}"
version = "0.1.0"
dimensions = {json.dumps(dimensions)}
runtime = "torch_vlm"
evidence = "none"
license = "Apache-2.0"
provenance = "random weights"
[image]
{size}
[text]
tokenizer = "tokenizer.json"
prompt = ["<s>", "<user>", "{{image}}", "{{question}}"]
answer = ["<assistant>", "{{response}}", "</s>"]
max_tokens = {max_tokens}
[text.turns]
between = ["</s>", "<user>"]
system = ["<s>", "{{system}}", "<user>"]
[vlm]
image = [{pieces}]
{heads}
[weights]
overall = 1.0
[calibration]
{calibration}
[files]
{digests}
"""
    )


def opened(folder: Path, **given: Any) -> TorchVlmBackend:
    manifest = read_manifest(folder / "model.toml")
    return open_torch_vlm(folder, manifest, Settings(**{"device": "cpu", "threads": 1, **given}))


class Plain:
    """The same checkpoint in transformers' own hands: one whole sequence a forward, and the head applied to its end."""

    def __init__(self, folder: Path, family: str, heads: bool = True, dtype: torch.dtype = torch.float32) -> None:
        self.kind = FAMILIES[family]
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval().model
        self.image_processor = self.kind.image_processor()
        self.head = load_file(folder / "reward_head.safetensors") if heads else {}

    def logits(
        self,
        pixels: np.ndarray[Any, Any] | None,
        prompt: Sequence[int],
        answer: Sequence[int],
        further: Sequence[np.ndarray[Any, Any]] = (),
    ) -> Tensor:
        return self.head["weight"] @ self.state(pixels, prompt, answer, further).float() + self.head["bias"]

    @torch.inference_mode()
    def state(
        self,
        pixels: np.ndarray[Any, Any] | None,
        prompt: Sequence[int],
        answer: Sequence[int],
        further: Sequence[np.ndarray[Any, Any]] = (),
    ) -> Tensor:
        """At the last token. All images of the sequence go through the processor together."""
        seen: dict[str, Any] = {}
        if pixels is not None:
            pictures = [Image.fromarray(each) for each in (pixels, *further)]
            images = [pictures] if self.kind.nested else pictures
            seen = dict(self.image_processor(images=images, return_tensors="pt"))
        count, grid = 1 + len(further), seen.get("image_grid_thw")
        tokens = [self.kind.image_tokens] * count if grid is None else [int(each.prod()) // 4 for each in grid]
        marks = self.kind.image.count("<image>")
        lengths = iter([number // marks for number in tokens for _ in range(marks)])
        expanded = [id_ for token in prompt for id_ in [token] * (next(lengths) if token == IMAGE else 1)]
        ids = torch.tensor([[*expanded, *answer]])
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **seen}
        if pixels is not None:
            inputs |= {self.kind.types: (ids == IMAGE).int()} if self.kind.types else {}
        state: Tensor = self.model(**inputs).last_hidden_state[0, -1]
        return state
