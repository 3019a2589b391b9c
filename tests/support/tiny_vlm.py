"""A random vision-language model of a few thousand parameters, and its processor."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil  # needs no torchvision

SIDE, PATCH = 28, 14
PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
SPECIAL = [PAD, EOS, UNKNOWN, "<image>", "<|user|>", "<|assistant|>", "<|system|>"]
WORDS = (
    "the a no left right lower upper lobe lung heart fracture effusion opacity nodule normal enlarged small large seen "
    "mild severe acute chronic bone liver spleen contrast shows without likely stable new finding is of in question "
    "0 1 2 3 4 5 6 7 8 9"
)
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|> {% for part in message.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


def tiny_processor() -> Any:
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *WORDS.split()])}
    words = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=SPECIAL[3:],
        padding_side="left",
    )
    images = LlavaImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_center_crop=True
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def tiny_model(tokenizer: Any) -> Any:
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**small, image_size=SIDE, patch_size=PATCH),
        text_config=LlamaConfig(**small, vocab_size=len(tokenizer), max_position_embeddings=128),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return LlavaForConditionalGeneration(config)


def write_tiny(folder: Path) -> None:
    """Writes a checkpoint that transformers' own programs load, with the same weights each time."""
    processor = tiny_processor()
    processor.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny_model(processor.tokenizer).save_pretrained(folder)
