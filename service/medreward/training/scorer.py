"""Question and answer read over visual tokens: a BERT encoder whose layers attend to the image too, and six heads.

The visual tokens are keys and values of every layer and are not themselves changed by the text, so that their
projections are made once an image, whatever is asked about it.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medreward.errors import ConfigurationError
from medreward.training.attention import attend
from medreward.types import DIMENSIONS

Seen = list[tuple[Tensor, Tensor]]  # keys and values of the visual tokens, a layer each


@dataclass(frozen=True, slots=True)
class TextShape:
    width: int
    layers: int
    attention_heads: int
    inner: int
    vocabulary: int
    places: int


class Layer(nn.Module):
    """A BERT layer (it normalises last) that also attends to visual tokens."""

    def __init__(self, shape: TextShape, looks: bool) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.attention_heads
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.grow = nn.Linear(width, shape.inner)
        self.shrink = nn.Linear(shape.inner, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        if looks:
            self.look = nn.Linear(width, 2 * width)

    def see(self, image_tokens: Tensor) -> tuple[Tensor, Tensor]:
        n, count, width = image_tokens.shape
        packed = self.look(image_tokens).view(n, count, 2, self.heads, width // self.heads)
        keys, values = packed.permute(2, 0, 3, 1, 4).unbind(0)
        return keys, values

    def forward(self, x: Tensor, seen: tuple[Tensor, Tensor] | None, bias: Tensor) -> Tensor:
        n, length, width = x.shape
        packed = self.project_in(x).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        if seen is not None:
            key, value = torch.cat([seen[0], key], 2), torch.cat([seen[1], value], 2)
        x = self.attention_norm(x + self.project_out(attend(query, key, value, bias)))
        after: Tensor = self.norm(x + self.shrink(nn.functional.gelu(self.grow(x))))
        return after


class Heads(nn.Module):
    """An ensemble of two-layer heads."""

    def __init__(self, width: int, heads: int, inner: int = 96) -> None:
        super().__init__()
        self.count = heads
        self.first = nn.Linear(width, heads * inner)
        self.second = nn.Parameter(torch.randn(heads, inner, len(DIMENSIONS)) * inner**-0.5)
        self.bias = nn.Parameter(torch.zeros(heads, len(DIMENSIONS)))

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.gelu(self.first(x)).view(x.shape[0], self.count, -1)
        logits: Tensor = torch.einsum("nhi,hid->nhd", inner, self.second) + self.bias
        return logits


class Scorer(nn.Module):
    def __init__(self, shape: TextShape, heads: int, separator: int, frozen: int) -> None:
        super().__init__()
        self.separator = separator  # ends the question; what follows is the answer
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.words.weight.requires_grad_(False)
        self.places = nn.Parameter(0.02 * torch.randn(shape.places, shape.width))
        self.parts = nn.Parameter(torch.zeros(2, shape.width))  # question, answer
        self.norm = nn.LayerNorm(shape.width, eps=1e-12)
        self.frozen = frozen  # layers that keep what they know and do not look
        self.layers = nn.ModuleList(Layer(shape, looks=place >= frozen) for place in range(shape.layers))
        for layer in self._layers()[:frozen]:
            layer.requires_grad_(False)
        self.heads = Heads(2 * shape.width, heads)

    def forward(self, image_tokens: Tensor, image_mask: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return self.read(self.see(image_tokens), image_mask, ids, mask)

    def see(self, image_tokens: Tensor) -> Seen:
        return [layer.see(image_tokens) for layer in self._layers()[self.frozen :]]

    def read(self, seen: Seen, image_mask: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [rows, heads, dimensions]; `seen` has an image a row."""
        ends = (ids == self.separator).to(torch.int64).cumsum(1)
        answer = ((ends > 0) & (mask > 0)).to(torch.float32)
        text = mask.to(torch.float32)
        x = self._read_alone(self.embed(ids, answer), text, self.frozen)
        bias = self._bias(image_mask, text, seen[0][0].shape[2])
        for layer, image in zip(self._layers()[self.frozen :], seen, strict=True):
            x = layer(x, image, bias)
        x = x.to(torch.float32)
        pooled = (x * answer[:, :, None]).sum(1) / answer.sum(1, keepdim=True).clamp(min=1.0)
        logits: Tensor = self.heads(torch.cat([x[:, 0], pooled], 1))
        return logits.to(torch.float32)

    def embed(self, ids: Tensor, answer: Tensor) -> Tensor:
        part = answer[:, :, None]
        parts = self.parts[0] * (1.0 - part) + self.parts[1] * part
        embedded: Tensor = self.norm(self.word_vectors(ids) + self.places[: ids.shape[1]] + parts)
        return embedded

    def word_vectors(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.words(ids)
        return vectors

    def sentences(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors of texts, as the encoder gave them before it learnt to score."""
        text = mask.to(torch.float32)
        x = self._read_alone(self.embed(ids, torch.zeros_like(text)), text, len(self.layers))
        pooled = (x.to(torch.float32) * text[:, :, None]).sum(1) / text.sum(1, keepdim=True)
        return nn.functional.normalize(pooled, dim=1)

    def _read_alone(self, x: Tensor, text: Tensor, layers: int) -> Tensor:
        bias = ((1.0 - text) * -1e9)[:, None, None, :]
        for layer in self._layers()[:layers]:
            x = layer(x, None, bias)
        return x

    def _bias(self, image_mask: Tensor, text: Tensor, count: int) -> Tensor:
        shown = torch.cat([image_mask[:, None].expand(-1, count), text], 1)
        return ((1.0 - shown) * -1e9)[:, None, None, :]

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]


def encoder_folder(name: str) -> Path:
    """A folder, or the folder `model` of a package that carries one."""
    if Path(name).is_dir():
        return Path(name)
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"no text encoder {name!r}: neither a folder nor an installed package")
    return Path(spec.origin).parent / "model"


def read_shape(folder: Path) -> TextShape:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return TextShape(
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        attention_heads=config["num_attention_heads"],
        inner=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        places=config["max_position_embeddings"],
    )


def load_encoder(scorer: Scorer, folder: Path) -> None:
    """The weights of a BERT into the scorer; its visual projections and heads stay as they were drawn."""
    source = load_file(folder / "model.safetensors")
    source = {name.removeprefix("bert."): value for name, value in source.items()}
    kinds = source["embeddings.token_type_embeddings.weight"]
    state = {
        "words.weight": source["embeddings.word_embeddings.weight"],
        "places": source["embeddings.position_embeddings.weight"],
        "parts": kinds[:1].repeat(2, 1),
    }
    pairs = {"norm": "embeddings.LayerNorm"}
    for index in range(len(scorer.layers)):
        theirs = f"encoder.layer.{index}"
        for part in ("weight", "bias"):
            packed = [source[f"{theirs}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            state[f"layers.{index}.project_in.{part}"] = torch.cat(packed)
        pairs |= {
            f"layers.{index}.project_out": f"{theirs}.attention.output.dense",
            f"layers.{index}.attention_norm": f"{theirs}.attention.output.LayerNorm",
            f"layers.{index}.grow": f"{theirs}.intermediate.dense",
            f"layers.{index}.shrink": f"{theirs}.output.dense",
            f"layers.{index}.norm": f"{theirs}.output.LayerNorm",
        }
    for ours, name in pairs.items():
        state |= {f"{ours}.{part}": source[f"{name}.{part}"] for part in ("weight", "bias")}
    wrong = scorer.load_state_dict(state, strict=False).unexpected_keys
    assert not wrong, wrong
