"""A data folder in little: drawn shapes with questions, and a text encoder with random weights."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from medreward.lab.training import recipe
from tiny_model import tokenizer

FORMS, SIDES, COLOURS = ("circle", "square"), ("left", "right"), ("white", "red")
WIDTH, INNER, LAYERS, PLACES = 32, 64, 2, 512


def write_data(folder: Path, images: int = 112, dev: int = 16) -> None:
    """`images` of one shape each, of which the last `dev` are held out, with the pairs to measure on."""
    (folder / "shapes" / "images").mkdir(parents=True)
    rows, pairs = [], []
    for index in range(images):
        form, side, colour = FORMS[index % 2], SIDES[index // 2 % 2], COLOURS[index // 4 % 2]
        name = f"images/{index}.png"
        draw_shape(form, side, colour, index).save(folder / "shapes" / name)
        split = "dev" if index >= images - dev else "train"
        facts = (
            ("What shape is shown?", "shape", form, FORMS),
            ("On which side is the shape?", "side", side, SIDES),
            ("What colour has the shape?", "colour", colour, COLOURS),
            ("Is the shape a circle?", "circle", "Yes" if form == "circle" else "No", ("Yes", "No")),
        )
        for question, kind, answer, among in facts:
            rows.append(
                {"image": name, "question": question, "answer": answer, "category": kind, "group": index,
                 "organ": "none", "modality": "drawing", "split": split}
            )  # fmt: skip
            if split == "dev":
                bad = next(other for other in among if other != answer)
                pairs.append(
                    {"set": "shapes", "image": f"shapes/{name}", "question": question, "good": answer, "bad": bad,
                     "kind": "accuracy", "dims": ["accuracy", "overall"]}
                )  # fmt: skip
    write_lines(folder / "shapes" / "qa.jsonl", rows)
    write_lines(folder / "dev_pairs.jsonl", pairs)


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def draw_shape(form: str, side: str, colour: str, seed: int) -> Image.Image:
    picture = Image.new("RGB", (64, 64))
    x, y = 4 + seed % 7 + (30 if side == "right" else 0), 12 + seed % 11
    box = (x, y, x + 20, y + 20)
    pen = ImageDraw.Draw(picture)
    (pen.ellipse if form == "circle" else pen.rectangle)(box, fill=colour)
    return picture


def write_encoder(folder: Path) -> None:
    """A BERT with random weights, in the files that a published one has."""
    folder.mkdir(parents=True)
    pieces = tokenizer()
    pieces.save(str(folder / "tokenizer.json"))
    config = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": INNER,
        "vocab_size": pieces.get_vocab_size(),
        "max_position_embeddings": PLACES,
    }
    (folder / "config.json").write_text(json.dumps(config))
    dice = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(*shape, generator=dice)

    state = {
        "embeddings.word_embeddings.weight": 10 * drawn(pieces.get_vocab_size(), WIDTH),
        "embeddings.position_embeddings.weight": drawn(PLACES, WIDTH),
        "embeddings.token_type_embeddings.weight": drawn(2, WIDTH),
        "embeddings.LayerNorm.weight": torch.ones(WIDTH),
        "embeddings.LayerNorm.bias": torch.zeros(WIDTH),
    }
    for index in range(LAYERS):
        layer = f"encoder.layer.{index}"
        shapes = {
            "attention.self.query": (WIDTH, WIDTH),
            "attention.self.key": (WIDTH, WIDTH),
            "attention.self.value": (WIDTH, WIDTH),
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (INNER, WIDTH),
            "output.dense": (WIDTH, INNER),
        }
        for name, shape in shapes.items():
            state[f"{layer}.{name}.weight"] = drawn(*shape)
            state[f"{layer}.{name}.bias"] = drawn(shape[0])
        for name in ("attention.output", "output"):
            state[f"{layer}.{name}.LayerNorm.weight"] = torch.ones(WIDTH)
            state[f"{layer}.{name}.LayerNorm.bias"] = torch.zeros(WIDTH)
    save_file(state, folder / "model.safetensors")


def tiny_recipe(encoder: Path, warm_up: int = 4, pairs: int = 6, rate: float = 3e-3, **more: Any) -> recipe.Recipe:
    return recipe.Recipe(
        **{
            "name": "tiny",
            "version": "0.1.0",
            "threads": 1,
            "average": 0.9,
            "weights": {"overall": 1.0},
            "provenance": "shapes",
            "tower": recipe.Tower(side=64, widths=(16, 16, 32, 32), blocks=(1, 1, 1, 1)),
            "text": recipe.Text(encoder=str(encoder), max_tokens=512, train_tokens=64, buckets=(32,)),
            "warm_up": recipe.WarmUp(steps=warm_up, images=16, questions=4, rate=3e-3),
            "pairs": recipe.Pairs(steps=pairs, images=12, questions=2, rate=rate, tower_rate=1.0, manner=0.1),
            **more,
        }
    )
