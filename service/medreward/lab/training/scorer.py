"""A guess at the answer, then question and answer read over visual tokens and guess by a BERT encoder.

The first layers read question and answer apart. With the question in mind the asker looks at the image and guesses the
answer's vector; the other layers attend to the text, the visual tokens and the guess. The visual tokens are keys and
values and are not themselves changed by the text, so that their projections are made once an image.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medreward.errors import ConfigurationError
from medreward.lab.training.attention import attend
from medreward.types import DIMENSIONS

Seen = list[tuple[Tensor, Tensor]]  # keys and values of the visual tokens: the asker's, then a layer's each
SHARPNESS = 16.0  # of the guess: its logit where it names the very answer
TRUSTED = ("accuracy", "overall")  # what the guess decides before anything is learnt


@dataclass(frozen=True, slots=True)
class TextShape:
    width: int
    layers: int
    attention_heads: int
    inner: int
    vocabulary: int
    places: int


class Asker(nn.Module):
    """Looks at the visual tokens with a question in mind and guesses the vector of the answer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 32
        self.query = nn.Linear(width, width)
        self.look = nn.Linear(width, 2 * width)
        self.mix = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.translate = nn.Linear(width, width)

    def see(self, image_tokens: Tensor) -> tuple[Tensor, Tensor]:
        return _keys_and_values(self.look(image_tokens), self.heads)

    def forward(self, seen: tuple[Tensor, Tensor], questions: Tensor) -> Tensor:
        """Returns guesses [rows, width]; `seen` has an image a row."""
        n, width = questions.shape
        query = self.query(questions)
        found = attend(query.view(n, 1, self.heads, width // self.heads).transpose(1, 2), *seen)[:, 0]
        return _level(self.mix(torch.cat([found, query], 1)))

    def named(self, answers: Tensor) -> Tensor:
        """Returns what a guess at these answers would be."""
        return _level(self.translate(answers))

    def spread(self, questions: Tensor, answers: Tensor) -> None:
        """Sets out with the known ones told well apart: as they come, they have most of their length in common."""
        _whiten(self.query, questions)
        _whiten(self.translate, answers)


@torch.no_grad()
def _whiten(layer: nn.Linear, vectors: Tensor) -> None:
    middle = vectors.mean(0)
    values, directions = torch.linalg.eigh((vectors - middle).T @ (vectors - middle) / len(vectors))
    scale = (values.clamp(min=0.0) + 0.01 * values.mean()).rsqrt()
    layer.weight.copy_(directions * scale @ directions.T)
    layer.bias.copy_(-layer.weight @ middle)


def _level(x: Tensor) -> Tensor:
    """Returns vectors whose numbers have a mean square of one."""
    level: Tensor = nn.functional.normalize(x.to(torch.float32), dim=1) * x.shape[1] ** 0.5
    return level


def _keys_and_values(packed: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    n, count, width = packed.shape
    keys, values = packed.view(n, count, 2, heads, width // 2 // heads).permute(2, 0, 3, 1, 4).unbind(0)
    return keys, values


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
        return _keys_and_values(self.look(image_tokens), self.heads)

    def forward(self, x: Tensor, seen: tuple[Tensor, Tensor] | None, bias: Tensor) -> Tensor:
        n, length, width = x.shape
        packed = self.project_in(x).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        if seen is not None:
            key, value = torch.cat([seen[0], key], 2), torch.cat([seen[1], value], 2)
        x = self.attention_norm(x + self.project_out(attend(query, key, value, bias)))
        after: Tensor = self.norm(x + self.shrink(nn.functional.gelu(self.grow(x))))
        return after


class Head(nn.Module):
    """Two layers beside the agreement with the guess; knows how far to doubt itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(3 * width, width)
        self.second = nn.Linear(width, len(DIMENSIONS))
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)
        trusted = torch.tensor([name in TRUSTED for name in DIMENSIONS])
        self.trust = nn.Parameter(0.5 * trusted)
        self.trusted: Tensor
        self.register_buffer("trusted", trusted, persistent=False)

    def forward(self, text: Tensor, agreement: Tensor) -> Tensor:
        inner = nn.functional.gelu(self.first(torch.cat([text, agreement], 1)))
        logits: Tensor = self.second(inner) + _agreed(agreement) * self.trust
        return logits

    def doubt(self, logits: Tensor, agreement: Tensor) -> Tensor:
        """Returns 1 where nothing speaks for or against, and less the more does: twice the deviation of such a coin.

        What the guess decides is doubted by the guess alone, which is wrong most often where it says least.
        """
        odds = torch.where(self.trusted, _agreed(agreement), logits)
        return 1.0 / torch.cosh(odds.clamp(-60.0, 60.0) / 2.0)


def _agreed(agreement: Tensor) -> Tensor:
    return SHARPNESS * agreement.mean(1, keepdim=True)


class Scorer(nn.Module):
    def __init__(self, shape: TextShape, separator: int, frozen: int) -> None:
        super().__init__()
        self.separator = separator  # ends the question; what follows is the answer
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.words.weight.requires_grad_(False)
        self.places = nn.Embedding(shape.places, shape.width)
        self.places.weight.requires_grad_(False)
        self.norm = nn.LayerNorm(shape.width, eps=1e-12).requires_grad_(False)
        self.frozen = frozen  # layers that keep what they know, and read question and answer apart
        self.layers = nn.ModuleList(Layer(shape, looks=place >= frozen) for place in range(shape.layers))
        for layer in self._layers()[:frozen]:
            layer.requires_grad_(False)
        self.parts = nn.Parameter(torch.zeros(2, shape.width))  # question, answer
        self.asker = Asker(shape.width)
        self.salience = nn.Linear(shape.width, 1)  # of a token for what is answered
        nn.init.zeros_(self.salience.weight)
        nn.init.zeros_(self.salience.bias)
        self.head = Head(shape.width)

    def forward(self, image_tokens: Tensor, image_mask: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Returns logits as they are served: the mean less and plus the doubt, [rows, 2, dimensions]."""
        logits, agreement = self.read(self.see(image_tokens), image_mask, ids, mask)
        doubt = self.head.doubt(logits, agreement)
        return torch.stack([logits - doubt, logits + doubt], 1)

    def see(self, image_tokens: Tensor) -> Seen:
        return [self.asker.see(image_tokens), *(layer.see(image_tokens) for layer in self._layers()[self.frozen :])]

    def read(self, seen: Seen, image_mask: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits [rows, dimensions] and agreement with the guess; `seen` has an image a row."""
        text, answer = self.split(ids, mask)
        x = self.read_apart(ids, text, answer)
        guess = self.asker(seen[0], mean(x, text - answer)) * image_mask[:, None]
        salient = answer * self.salience(x).squeeze(2).to(torch.float32).clamp(-8.0, 8.0).exp()
        agreement = guess * self.asker.named(mean(x, salient))
        x = x + self.parts[0] * (1.0 - answer[:, :, None]) + self.parts[1] * answer[:, :, None]
        shown = torch.cat([image_mask[:, None].expand(-1, seen[0][0].shape[2] + 1), text], 1)
        bias = ((1.0 - shown) * -1e9)[:, None, None, :]
        for layer, (keys, values) in zip(self._layers()[self.frozen :], seen[1:], strict=True):
            key, value = layer.see(guess[:, None])
            x = layer(x, (torch.cat([keys, key], 2), torch.cat([values, value], 2)), bias)
        x = x.to(torch.float32)
        logits: Tensor = self.head(torch.cat([x[:, 0], mean(x, answer)], 1), agreement)
        return logits.to(torch.float32), agreement

    def split(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns 1.0 at each place of the text, and at each of the answer."""
        ends = (ids == self.separator).to(torch.int64).cumsum(1)
        return mask.to(torch.float32), ((ends > 0) & (mask > 0)).to(torch.float32)

    def read_apart(self, ids: Tensor, text: Tensor, answer: Tensor) -> Tensor:
        """Runs the frozen layers, in which question and answer neither see each other nor know each other's length."""
        question_length = (text - answer).sum(1, keepdim=True)
        places = torch.arange(ids.shape[1]) - (question_length * answer).to(torch.int64)
        x: Tensor = self.norm(self.words(ids) + self.places(places))
        apart = (answer[:, :, None] - answer[:, None, :]).abs() + 1.0 - text[:, None, :]
        for layer in self._layers()[: self.frozen]:
            x = layer(x, None, apart[:, None] * -1e9)
        return x

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]


def mean(x: Tensor, of: Tensor) -> Tensor:
    """Returns the mean [rows, width] over the places, with the weights `of`."""
    x = x.to(torch.float32)
    average: Tensor = (x * of[:, :, None]).sum(1) / of.sum(1, keepdim=True).clamp(min=1e-3)
    return average


def encoder_folder(name: str) -> Path:
    """Returns a folder, or the folder `model` of a package that carries one; it fails if there is neither."""
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
    """Loads the weights of a BERT into the scorer; its visual projections and heads stay as they were drawn."""
    source = load_file(folder / "model.safetensors")
    source = {name.removeprefix("bert."): value for name, value in source.items()}
    state = {
        "words.weight": source["embeddings.word_embeddings.weight"],
        "places.weight": source["embeddings.position_embeddings.weight"]
        + source["embeddings.token_type_embeddings.weight"][0],
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
