"""A complete little model folder, made in a second: a real transformer in ONNX, a real tokenizer, digests."""

import hashlib
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor, nn

from medreward.backends.base import Group, Logits
from medreward.types import DIMENSIONS

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<|image|>"]
SENTENCES = [
    "Is there a fracture of the left rib?",
    "Yes, the chest radiograph shows a fracture of the left sixth rib, with no pneumothorax.",
    "What does this image show? The image shows no abnormality; the heart is of normal size.",
    "Which finding is urgent? A large pleural effusion with a shift of the mediastinum.",
    "I think the liver has a lesion, but the scan is not enough: further tests are needed.",
]


@dataclass(frozen=True)
class Shape:
    width: int = 32
    layers: int = 2
    attention_heads: int = 4
    ensemble: int = 2
    side: int = 64
    patch: int = 16
    vocabulary: int = 300
    max_tokens: int = 512
    dimensions: tuple[str, ...] = DIMENSIONS


class ImageTower(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, shape.width, shape.patch, stride=shape.patch)
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, pixels: Tensor) -> Tensor:
        scaled = pixels.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        tokens: Tensor = self.norm(self.patches(scaled).flatten(2).transpose(1, 2))
        return tokens


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.attention_heads
        self.attention_norm = nn.LayerNorm(shape.width)
        self.project_in = nn.Linear(shape.width, 3 * shape.width)
        self.project_out = nn.Linear(shape.width, shape.width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(shape.width),
            nn.Linear(shape.width, 4 * shape.width),
            nn.GELU(),
            nn.Linear(4 * shape.width, shape.width),
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        n, length, width = x.shape
        packed = self.project_in(self.attention_norm(x)).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x + self.project_out(mixed.transpose(1, 2).reshape(n, length, width))
        after: Tensor = x + self.mlp(x)
        return after


class Scorer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ensemble = shape.ensemble
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Parameter(torch.randn(shape.max_tokens, shape.width))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.dimensions = nn.Linear(shape.width, shape.ensemble * len(shape.dimensions))

    def forward(self, image_tokens: Tensor, image_mask: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        x = torch.cat([image_tokens, self.words(ids) + self.positions[: ids.shape[1]]], dim=1)
        text_mask = mask.to(torch.float32)
        seen = torch.cat([image_mask[:, None].expand(-1, image_tokens.shape[1]), text_mask], dim=1)
        bias = ((1.0 - seen) * -1e9)[:, None, None, :]
        for block in self.blocks:
            x = block(x, bias)
        text = self.norm(x[:, image_tokens.shape[1] :])
        pooled = (text * text_mask[:, :, None]).sum(1) / text_mask.sum(1, keepdim=True)
        logits: Tensor = self.dimensions(pooled).view(-1, self.ensemble, self.dimensions.out_features // self.ensemble)
        return logits


def torch_model(seed: int = 0, shape: Shape | None = None) -> tuple[ImageTower, Scorer]:
    shape = shape or Shape()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ImageTower(shape).eval(), Scorer(shape).eval()


def torch_logits(group: Group, seed: int = 0, shape: Shape | None = None) -> Logits:
    """What the model of this seed says without ONNX Runtime, one answer at a time."""
    tower, scorer = torch_model(seed, shape)
    with torch.inference_mode():
        if group.image is None:
            tokens, seen = torch.zeros(1, 16, 32), torch.zeros(1)
        else:
            tokens, seen = tower(torch.from_numpy(group.image.pixels[None])), torch.ones(1)
        rows = [torch.tensor([[*group.prompt, *answer]]) for answer in group.answers]
        return np.concatenate([scorer(tokens, seen, ids, torch.ones_like(ids)).numpy() for ids in rows])


def tokenizer() -> tokenizers.Tokenizer:
    """Words of the sentences, and letters for the rest. Not trained: a trainer's order differs from run to run."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = sorted(set(re.findall(r"[a-z]{2,}", " ".join(SENTENCES).lower())))
    vocabulary = [*SPECIAL_TOKENS, *letters, *("##" + letter for letter in letters), *words]
    pieces = tokenizers.Tokenizer(WordPiece({piece: index for index, piece in enumerate(vocabulary)}))
    pieces.normalizer = Lowercase()
    pieces.pre_tokenizer = BertPreTokenizer()
    pieces.add_special_tokens(SPECIAL_TOKENS)
    return pieces


def write_tiny_model(folder: Path, seed: int = 0, shape: Shape | None = None) -> None:
    shape = shape or Shape()
    folder.mkdir(parents=True, exist_ok=True)
    export_graphs(folder, *torch_model(seed, shape), shape)
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "card.md").write_text("# tiny\n\nRandom weights, for tests; its numbers mean nothing.\n")
    names = ["image.onnx", "score.onnx", "tokenizer.json", "card.md"]
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "model.toml").write_text(manifest(digests, shape.dimensions))


def manifest(digests: dict[str, str], dimensions: tuple[str, ...] = DIMENSIONS) -> str:
    files = "\n".join(f'"{name}" = "{digest}"' for name, digest in digests.items())
    calibration = "\n".join(f"{name} = {{ median = 0.0, scale = 1.0 }}" for name in dimensions)
    named = "" if dimensions == DIMENSIONS else f"dimensions = {json.dumps(dimensions)}"
    return f"""
name = "tiny"
{named}
version = "0.1.0"
runtime = "onnx"
evidence = "none"
license = "Apache-2.0"
provenance = "random weights"
card = "card.md"

[image]
width = {Shape.side}
height = {Shape.side}

[text]
tokenizer = "tokenizer.json"
prompt = ["[CLS]", "{{question}}", "[SEP]"]
answer = ["{{response}}", "[SEP]"]
max_tokens = {Shape.max_tokens}

[onnx]
image_graph = "image.onnx"
score_graph = "score.onnx"

[weights]
overall = 1.0

[calibration]
{calibration}

[files]
{files}
"""


def export(
    module: nn.Module, inputs: dict[str, Tensor], output: str, dynamic: dict[str, dict[int, str]], to: Path
) -> None:
    dims = {name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in dynamic.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        program = torch.onnx.export(
            module,
            (),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=dims,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(to, external_data=False)


def export_graphs(folder: Path, tower: ImageTower, scorer: Scorer, shape: Shape) -> None:
    pixels = torch.zeros(2, shape.side, shape.side, 3, dtype=torch.uint8)
    export(tower, {"pixels": pixels}, "tokens", {"pixels": {0: "n"}}, folder / "image.onnx")
    ids, mask = (torch.ones(2, 7, dtype=torch.int64) for _ in range(2))  # one tensor for both would become one input
    inputs = {"image_tokens": tower(pixels).detach(), "image_mask": torch.ones(2), "ids": ids, "mask": mask}
    rows = {"image_tokens": {0: "n"}, "image_mask": {0: "n"}, "ids": {0: "n", 1: "l"}, "mask": {0: "n", 1: "l"}}
    export(scorer, inputs, "logits", rows, folder / "score.onnx")
