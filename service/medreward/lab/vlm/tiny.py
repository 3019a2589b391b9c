"""A vision-language model of random weights, small enough to learn on a CPU, with a tokenizer of the phantoms' words.

`python -m medreward.lab.vlm.tiny DIR` writes it: it shows what a recipe does, on a machine without a GPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from medreward.lab.phantoms.answer import answers
from medreward.lab.phantoms.ask import questions
from medreward.lab.phantoms.draw import imagine

UNKNOWN: Final = "<unk>"
CONTROL: Final = [UNKNOWN, "<pad>", "<s>", "</s>", "<image>", "<user>", "<assistant>"]
TEMPLATE: Final = (
    "<s>{% for turn in messages %}<{{ turn.role }}>{% for part in turn.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% if turn.role == 'assistant' %}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPREAD: Final = 0.1  # of random weights: with the usual 0.02 so small a model takes far longer to look
WORDS: Final = 2000  # in the tokenizer
READ: Final = 40  # phantoms whose texts it is made from
FIRST: Final = 500_000  # the first of them; no set is made from these


@dataclass(frozen=True, slots=True)
class Shape:
    side: int = 48
    patch: int = 12
    width: int = 48  # of the language model
    seen: int = 48  # width of the tower
    layers: int = 2


def write_tiny(folder: Path, shape: Shape = Shape(), seed: int = 0) -> None:
    """Writes the checkpoint as transformers saves one: the same weights for the same seed, without a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    words = _tokenizer()
    names = {"unk_token": UNKNOWN, "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    own = PreTrainedTokenizerFast(tokenizer_object=words, **names)
    own.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    crop = {"height": shape.side, "width": shape.side}
    LlavaImageProcessorPil(size={"shortest_edge": shape.side}, crop_size=crop).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlavaForConditionalGeneration(_config(words, shape)).save_pretrained(folder)


def _config(words: Tokenizer, shape: Shape) -> Any:
    vision = CLIPVisionConfig(
        hidden_size=shape.seen,
        intermediate_size=2 * shape.seen,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        image_size=shape.side,
        patch_size=shape.patch,
        initializer_range=SPREAD,
    )
    text = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        vocab_size=words.get_vocab_size(),
        max_position_embeddings=2048,
        initializer_range=SPREAD,
        pad_token_id=words.token_to_id("<pad>"),
        bos_token_id=words.token_to_id("<s>"),
        eos_token_id=words.token_to_id("</s>"),
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=words.token_to_id("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        initializer_range=SPREAD,
    )


def _tokenizer() -> Tokenizer:
    words = Tokenizer(models.BPE(unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=CONTROL, initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(_texts(), trainer)
    return words


def _texts() -> Iterator[str]:
    for seed in range(FIRST, FIRST + READ):
        phantom = imagine(seed)
        for question in questions(phantom, seed):
            yield question.text
            yield from (answer.text for answer in answers(phantom, question, seed))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", default=0, show_default=True, help="another number makes other weights")
def main(folder: Path, seed: int) -> None:
    """Write a checkpoint of random weights into FOLDER, as transformers saves one."""
    write_tiny(folder, seed=seed)
    click.echo(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
