"""Tiny checkpoints of the families that cut images into tiles, and the same in transformers' own hands: its processor
makes ids and pixels of texts and original images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from backends.torch_vlm import checkpoints
from backends.torch_vlm.checkpoints import BETWEEN, IMAGE, TEXT, TOKENS, VISION, linear_head, write_manifest

TILE = 28
GRIDS = [[1, 1], [1, 2], [2, 1], [2, 2], [1, 3], [3, 1], [3, 3]]
PINPOINTS = [[rows * TILE, columns * TILE] for rows, columns in GRIDS]
MARKS = ["<fake_token_around_image>", "<global-img>"]
MARKS += [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
WORDS = {**TOKENS, **{word: len(TOKENS) + place for place, word in enumerate([*MARKS, "\n", "\n\n"])}}
FILL = "fill = [122, 116, 104]"  # what OneVision's default processor pads with


@dataclass(frozen=True)
class Family:
    config: Callable[[], Any]
    image_processor: Callable[[], Any]
    processor: Callable[[Any, Any], Any]
    section: str  # [image] of the manifest, behind fit, rule and tile
    image: Sequence[str] = ("<image>",)


def without_videos(processor: Any) -> Any:
    """Returns the processor without its part for videos, which needs torchvision."""
    return type(processor.__name__, (processor,), {"check_argument_for_proper_class": lambda *_: None})


def llava_next() -> Any:
    return transformers.LlavaNextConfig(
        text_config=transformers.MistralConfig(**TEXT, sliding_window=40),
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=TILE, patch_size=7),
        image_grid_pinpoints=PINPOINTS,
        image_token_index=IMAGE,
    )


def llava_onevision() -> Any:
    return transformers.LlavaOnevisionConfig(
        text_config=transformers.Qwen2Config(**TEXT),
        vision_config=transformers.SiglipVisionConfig(**VISION, image_size=TILE, patch_size=7, vision_use_head=False),
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_4",
        image_token_index=IMAGE,
        video_token_index=TOKENS["<video>"],
    )


def internvl() -> Any:
    return transformers.InternVLConfig(
        text_config=transformers.Qwen2Config(**TEXT),
        vision_config=transformers.InternVLVisionConfig(**VISION, image_size=TILE, patch_size=7),
        image_token_id=IMAGE,
    )


def llava_next_pixels() -> Any:
    tile = {"height": TILE, "width": TILE}
    return LlavaNextImageProcessorPil(size={"shortest_edge": TILE}, crop_size=tile, image_grid_pinpoints=PINPOINTS)


FAMILIES = {
    "llava_next": Family(
        llava_next,
        llava_next_pixels,
        lambda images, own: transformers.LlavaNextProcessor(images, own, 7, "default", num_additional_image_tokens=1),
        f'rule = "llava_next"\ntokens = 16\ngrids = {GRIDS}',
    ),
    "llava_onevision": Family(
        llava_onevision,
        lambda: LlavaOnevisionImageProcessorPil(size={"height": TILE, "width": TILE}, image_grid_pinpoints=PINPOINTS),
        lambda images, own: without_videos(transformers.LlavaOnevisionProcessor)(
            images, own, None, 16, "full", vision_aspect_ratio="anyres_max_4"
        ),
        f'rule = "llava_onevision"\ntokens = 16\ngrids = {GRIDS}\nmax_tiles = 4\n{FILL}',
    ),
    "internvl": Family(
        internvl,
        lambda: GotOcr2ImageProcessorPil(size={"height": TILE, "width": TILE}, max_patches=6),
        lambda images, own: without_videos(transformers.InternVLProcessor)(images, own, None, 4),
        'rule = "internvl"\ntokens = 4\nmin_tiles = 1\nmax_tiles = 6',
        BETWEEN,
    ),
    "idefics3": Family(
        checkpoints.idefics3,
        lambda: Idefics3ImageProcessorPil(size={"longest_edge": 3 * TILE}, max_image_size={"longest_edge": TILE}),
        lambda images, own: transformers.Idefics3Processor(images, own, 4),
        f'rule = "idefics3"\ntokens = 4\nlongest = {3 * TILE}',
    ),
    "smolvlm": Family(
        checkpoints.smolvlm,
        lambda: SmolVLMImageProcessorPil(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE}),
        lambda images, own: transformers.Idefics3Processor(images, own, 4),  # writes the same; its own wants num2words
        f'rule = "idefics3"\ntokens = 4\nlongest = {2 * TILE}',
    ),
}


def tokenizer() -> Tokenizer:
    """Splits at spaces and line ends, which are tokens as they are to large tokenizers."""
    made = Tokenizer(WordLevel(WORDS, unk_token="<unk>"))  # noqa: S106
    lines = pre_tokenizers.Split(Regex("\n+"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), lines])
    made.add_special_tokens([*checkpoints.CONTROL, *MARKS])
    return made


def own_tokenizer() -> Any:
    roles = {"image_token": "<image>", "context_image_token": "<image>", "video_token": "<video>"}
    roles |= {"start_image_token": "<vision>", "end_image_token": "</vision>"}
    names = {"unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer(), **names, extra_special_tokens=roles)


def write_tiled(folder: Path, family: str) -> None:
    kind = FAMILIES[family]
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForImageTextToText.from_config(kind.config()).save_pretrained(folder)
        save_file(linear_head(), folder / "reward_head.safetensors")
    kind.image_processor().save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    write_manifest(folder, family, image=kind.image, size=f'fit = "tiles"\ntile = {TILE}\n{kind.section}')


class Theirs:
    """transformers' processor and model of the family."""

    def __init__(self, folder: Path, family: str) -> None:
        kind = FAMILIES[family]
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval().model
        self.processor = kind.processor(kind.image_processor(), own_tokenizer())
        self.head = load_file(folder / "reward_head.safetensors")

    @torch.inference_mode()
    def logits(self, text: str, images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, list[int]]:
        """Returns the logits at the last token, and all ids. All images are those of one conversation."""
        pictures = [[Image.fromarray(each) for each in images]] if images else None
        made = self.processor(images=pictures, text=[text], return_tensors="pt", add_special_tokens=False)
        inputs = {name: made[name] for name in made.keys() - {"num_patches", "mm_token_type_ids", "token_type_ids"}}
        state = self.model(**inputs).last_hidden_state[0, -1]
        return self.head["weight"] @ state + self.head["bias"], made["input_ids"][0].tolist()
