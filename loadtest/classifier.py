"""A Qwen2.5-VL classifier of six labels, random weights: a folder for us, one for vLLM, and triples for them."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from loadtest.vlm import image_processor, side_of
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast, Qwen2_5_VLConfig

from medreward.types import DIMENSIONS

CONTROL: Final = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
ROLES: Final = ("user", "assistant")
WORDS: Final = [f"w{number}" for number in range(900)]
IDS: Final = {token: id_ for id_, token in enumerate([*CONTROL, *ROLES, *WORDS])}
TEMPLATE: Final = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{% if turn.content is string %}{{ turn.content }}{% else %}"
    "{% for part in turn.content %}{% if part.type in ('image', 'image_url') or 'image' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUESTION: Final = 32
#: Of the text and of the vision tower: the model that is measured, and one that starts at once.
SHAPES: Final[dict[str, tuple[dict[str, int], dict[str, Any]]]] = {
    "small": (
        {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12}
        | {"num_attention_heads": 12, "num_key_value_heads": 4},
        {"depth": 2, "hidden_size": 256, "num_heads": 4, "intermediate_size": 512, "fullatt_block_indexes": [1]},
    ),
    "tiny": (
        {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
        | {"num_attention_heads": 4, "num_key_value_heads": 2},
        {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 128, "fullatt_block_indexes": [1]},
    ),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One image and one question, and answers to it."""

    png: bytes
    question: str
    answers: Sequence[str]

    @property
    def base64(self) -> str:
        """The image as it travels in JSON."""
        return b64encode(self.png).decode()


def write_folders(ours: Path, vllm: Path, shape: str, image_tokens: int) -> None:
    """Writes the same weights twice. vLLM 0.32 wants another name for the head, and the labels in `text_config` too."""
    text, vision = SHAPES[shape]
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(_config(text, vision))
    labels = {"id2label": dict(enumerate(DIMENSIONS)), "num_labels": len(DIMENSIONS)}
    weight = torch.randn(len(DIMENSIONS), text["hidden_size"]) / text["hidden_size"] ** 0.5
    for folder, head in ((ours, {"weight": weight}), (vllm, {"language_model.score.weight": weight})):
        if folder is vllm:
            model.config.update(labels)
            model.config.text_config.update(labels)
        else:
            head["bias"] = torch.zeros(len(DIMENSIONS))
        model.save_pretrained(folder)
        save_file(head, folder / "reward_head.safetensors")
        image_processor(side_of(image_tokens)).save_pretrained(folder)
        _tokenizer().save_pretrained(folder)
        (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")


def asked(seed: Sequence[int], groups: int, answers: int, image_tokens: int, words: int) -> list[Asked]:
    """Returns groups that no other seed gives. Answers are half to one and a half times as long as `words`."""
    rng = np.random.default_rng(seed)
    lengths = np.linspace(words / 2, words * 1.5, answers).round().astype(int) if answers > 1 else [words]
    return [
        Asked(_png(rng, side_of(image_tokens)), _words(rng, QUESTION), [_words(rng, length) for length in lengths])
        for _ in range(groups)
    ]


def _config(text: dict[str, int], vision: dict[str, Any]) -> Any:
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    section = [half // 4, half * 3 // 8, half - half // 4 - half * 3 // 8]
    ids = {name: IDS[f"<|{token}|>"] for name, token in (("pad_token_id", "endoftext"), ("eos_token_id", "im_end"))}
    return Qwen2_5_VLConfig(
        text_config={
            **text,
            **ids,
            "bos_token_id": ids["pad_token_id"],
            "vocab_size": 1024,
            "max_position_embeddings": 8192,
            "initializer_range": 0.06,  # so that every layer shows in the logits
            "rope_parameters": {"rope_type": "default", "mrope_section": section, "rope_theta": 1e6},
        },
        vision_config={**vision, "out_hidden_size": text["hidden_size"], "initializer_range": 0.06},
        image_token_id=IDS["<|image_pad|>"],
        video_token_id=IDS["<|video_pad|>"],
        vision_start_token_id=IDS["<|vision_start|>"],
        vision_end_token_id=IDS["<|vision_end|>"],
    )


def _tokenizer() -> Any:
    words = Tokenizer(WordLevel(IDS, unk_token=CONTROL[0]))
    words.pre_tokenizer = Whitespace()
    words.add_special_tokens([*CONTROL])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token=CONTROL[0],
        pad_token=CONTROL[0],
        eos_token="<|im_end|>",  # noqa: S106  # a token of text
        additional_special_tokens=[*CONTROL],
    )


def _png(rng: np.random.Generator, side: int) -> bytes:
    coarse = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
    file = BytesIO()
    coarse.resize((side, side), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def _words(rng: np.random.Generator, count: int) -> str:
    return " ".join(WORDS[number] for number in rng.integers(0, len(WORDS), count))
