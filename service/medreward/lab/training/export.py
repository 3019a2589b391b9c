"""A trained run to a model folder: graphs in the server's form, tokenizer, manifest with digests, golden triples."""

import base64
import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import Tensor, nn

from medreward.artifacts.manifest import Calibration, Manifest, read_manifest
from medreward.artifacts.toml import toml
from medreward.encoding.text import FileTokenizer
from medreward.errors import ConfigurationError
from medreward.lab.training import recipe
from medreward.lab.training.calibrate import MEASURED, Measured
from medreward.lab.training.card import card
from medreward.lab.training.images import png
from medreward.lab.training.measure import measure_folder
from medreward.lab.training.model import Model
from medreward.lab.training.scope import Scope
from medreward.lab.training.scorer import Scorer, encoder_folder, read_shape
from medreward.lab.training.served import Progress, Served
from medreward.lab.training.tokens import ANSWER, PROMPT
from medreward.lab.training.tower import Tower, fold_norms
from medreward.lab.training.train import SCOPE, WEIGHTS
from medreward.types import DIMENSIONS

MANIFEST: Final = "model.toml"
CARD, GOLDEN, EVIDENCE = "card.md", "golden.json", "measured.json"
BESIDE: Final = {"card": CARD, "golden": GOLDEN, "measured": EVIDENCE}  # what decides no score
FAMILY: Final = "convolutional tower with BERT"
#: What `Head.doubt` gives, for `GET /v1/model`.
UNCERTAINTY: Final = (
    "A doubt of each dimension from 0 (sure) to 1: 1 / cosh(x / 2). For accuracy and overall, x is how far the "
    "response agrees with what the model itself would answer after looking at the image; it is 0 without an image, "
    "so that the doubt is 1. For the other dimensions x is the dimension's logit. How well it ranks this model's "
    "errors stands in its card. It is no standard deviation and no probability of error."
)
SMALL: Final = 256  # numbers that are not worth halving


@dataclass(frozen=True, slots=True)
class Example:
    """A triple to pin the model's numbers with."""

    image: bytes | None  # PNG
    question: str
    response: str


class ByteRows(nn.Module):
    """An embedding at a byte a number, each row with a scale of its own."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        scale = (weight.abs().amax(1, keepdim=True).clamp(min=1e-4) / 127.0).half().float()
        self.bytes: Tensor
        self.scale: Tensor
        self.register_buffer("bytes", torch.round(weight / scale).clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        return self.bytes[ids].to(torch.float32) * self.scale[ids]


class StoredScorer(nn.Module):
    """The scorer, with how strange the image is in a seventh column."""

    def __init__(self, scorer: Scorer, scope: Scope) -> None:
        super().__init__()
        self.scorer = scorer
        self.scope = scope

    def forward(self, image_tokens: Tensor, image_mask: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.scorer(image_tokens, image_mask, ids, mask)
        strange = (self.scope(image_tokens) * image_mask)[:, None, None].expand(-1, logits.shape[1], 1)
        return torch.cat([logits, strange], 2)


def export_run(run: Path, to: Path, data: Path | None = None, progress: Progress = lambda *_: None) -> Manifest:
    """Writes what a finished run left in its folder as a model folder; it is measured on the dev pairs of `data`."""
    settings = recipe.read_recipe(run / "recipe.toml")
    if not (run / WEIGHTS).exists():
        raise ConfigurationError(f"{run} holds no finished run: no {WEIGHTS}")
    found = Measured.model_validate_json((run / MEASURED).read_bytes())
    divide = np.array([found.temperatures[name] for name in DIMENSIONS])
    model = as_stored(load_model(settings, run / WEIGHTS), divide)
    manifest = write_model(model, read_scope(run), settings, found.levels, golden_examples(), to)
    return add_evidence(settings, found.levels, data, to, progress) if data else manifest


def add_evidence(
    settings: recipe.Recipe, levels: Mapping[str, Calibration], data: Path, folder: Path, progress: Progress
) -> Manifest:
    """Measure what lies in the folder, and put the figures and a card that shows them beside it."""
    manifest = read_manifest(folder / MANIFEST)
    found = measure_folder(folder, manifest, data, progress)
    (folder / EVIDENCE).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (folder / CARD).write_text(card(settings.name, settings.version, settings.provenance, found), "utf-8")
    (folder / MANIFEST).write_text(_manifest(settings, levels, folder, [*manifest.files, EVIDENCE]), "utf-8")
    return read_manifest(folder / MANIFEST)


def golden_examples(count: int = 4) -> list[Example]:
    """Returns phantoms with an answer each, and one text alone."""
    from medreward.lab.phantoms.answer import answers
    from medreward.lab.phantoms.ask import questions
    from medreward.lab.phantoms.draw import draw

    found = [Example(None, "Is there a fracture of the left rib?", "Yes, of the sixth rib, without a pneumothorax.")]
    for seed in range(count):
        phantom = draw(seed, size=96)
        asked = questions(phantom, seed)[0]
        found.append(Example(png(phantom.pixels), asked.text, answers(phantom, asked, seed)[seed].text))
    return found


def load_model(settings: recipe.Recipe, weights: Path) -> Model:
    """Returns the trained model."""
    folder = encoder_folder(settings.text.encoder)
    separator = FileTokenizer(folder / "tokenizer.json").control_tokens["[SEP]"]
    model = Model(settings, read_shape(folder), separator)
    model.load_state_dict(load_file(weights))
    return model.eval()


def read_scope(run: Path) -> Scope | None:
    if not (run / SCOPE).exists():
        return None
    state = load_file(run / SCOPE)
    scope = Scope(len(state["middle"]) // 2, state["usual"].shape[1])
    scope.load_state_dict(state)
    return scope


@torch.no_grad()
def as_stored(model: Model, divide: NDArray[np.float64]) -> Model:
    """Returns the model with the weights that its files will hold: calibrated head, folded norms, halves, bytes."""
    scorer = model.scorer
    by = torch.from_numpy(1.0 / divide).to(torch.float32)
    for weight in (scorer.head.second.weight.T, scorer.head.second.bias, scorer.head.trust):
        weight.mul_(by)
    fold_norms(model.tower)
    scorer.words = ByteRows(scorer.words.weight)  # type: ignore[assignment]
    scorer.places = ByteRows(scorer.places.weight)  # type: ignore[assignment]
    for value in model.parameters():
        if value.ndim > 1:
            value.copy_(value.half().float())
    return model


def write_model(
    model: Model,
    scope: Scope | None,
    settings: recipe.Recipe,
    levels: Mapping[str, Calibration],
    examples: Sequence[Example],
    to: Path,
) -> Manifest:
    """Writes everything that `medreward serve` needs; `model` is one that came through `as_stored`."""
    to.mkdir(parents=True, exist_ok=True)
    write_graphs(model.tower, StoredScorer(model.scorer, scope) if scope else model.scorer, settings, to)
    shutil.copyfile(encoder_folder(settings.text.encoder) / "tokenizer.json", to / "tokenizer.json")
    (to / EVIDENCE).unlink(missing_ok=True)  # of what lay here before
    (to / CARD).write_text(card(settings.name, settings.version, settings.provenance, None), "utf-8")
    names = ["image.onnx", "score.onnx", "tokenizer.json", CARD]
    (to / MANIFEST).write_text(_manifest(settings, levels, to, names), "utf-8")
    (to / GOLDEN).write_text(_golden(to, examples), "utf-8")
    (to / MANIFEST).write_text(_manifest(settings, levels, to, [*names, GOLDEN]), "utf-8")
    return read_manifest(to / MANIFEST)


def write_graphs(tower: Tower, scorer: Scorer | StoredScorer, settings: recipe.Recipe, to: Path) -> None:
    side = settings.tower.side
    pixels = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    with torch.inference_mode():
        tokens = tower(pixels)
    _export(tower, {"pixels": pixels}, "tokens", {"pixels": {0: "n"}}, to / "image.onnx")
    ids, mask = (torch.ones(2, 7, dtype=torch.int64) for _ in range(2))  # one tensor for both would become one input
    inputs = {"image_tokens": tokens.clone(), "image_mask": torch.ones(2), "ids": ids, "mask": mask}
    axes = {"image_tokens": {0: "n"}, "image_mask": {0: "n"}, "ids": {0: "n", 1: "l"}, "mask": {0: "n", 1: "l"}}
    _export(scorer, inputs, "logits", axes, to / "score.onnx")


def _export(
    module: nn.Module, inputs: dict[str, Tensor], output: str, axes: dict[str, dict[int, str]], to: Path
) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here uses
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        program = torch.onnx.export(
            module.to(memory_format=torch.contiguous_format),  # type: ignore[call-overload]
            (),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes={name: dict.fromkeys(open_, torch.export.Dim.DYNAMIC) for name, open_ in axes.items()},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(to, external_data=False)
    graph = onnx.load(to)
    _forget_origin(graph)
    _halve(graph.graph)
    onnx.save(graph, to)


def _forget_origin(model: Any) -> None:
    """Removes the source line and path that the exporter notes with every node."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _halve(graph: Any) -> None:
    """Keep in half precision what loses nothing by it; the runtime widens it once, when it loads the graph."""
    for place, weight in enumerate(graph.initializer):
        if weight.data_type != onnx.TensorProto.FLOAT or np.prod(weight.dims) < SMALL:
            continue
        wide = numpy_helper.to_array(weight)
        half = wide.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), wide):
            continue
        name = weight.name
        graph.initializer[place].CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        cast = onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT)
        graph.node.insert(0, cast)


def _golden(folder: Path, examples: Sequence[Example]) -> str:
    """Returns the examples, as JSON, with the logits that the exported graphs give them."""
    manifest = read_manifest(folder / MANIFEST)
    served = Served(folder, manifest, threads=1)
    rows = []
    for index, example in enumerate(examples):
        image = None if example.image is None else served.image(str(index), example.image)
        group = served.group(image, example.question, [example.response])
        logits = served.backend.score([group])[0][0].astype(np.float64).mean(0)
        rows.append(
            {
                "image": None if example.image is None else base64.b64encode(example.image).decode(),
                "question": example.question,
                "response": example.response,
                "logits": {name: round(float(logits[place]), 6) for place, name in enumerate(DIMENSIONS)},
            }
        )
    return json.dumps(rows, indent=1) + "\n"


def _manifest(settings: recipe.Recipe, levels: Mapping[str, Calibration], folder: Path, names: Sequence[str]) -> str:
    tokenizer = FileTokenizer(folder / "tokenizer.json")
    stops = sorted({token for text in settings.reading.stops for token in tokenizer.encode(text)})
    tables: dict[str, Mapping[str, Any]] = {
        "image": {"width": settings.tower.side, "height": settings.tower.side},
        "text": {
            "tokenizer": "tokenizer.json",
            "prompt": list(PROMPT),
            "answer": list(ANSWER),
            "max_tokens": settings.text.max_tokens,
        },
        "onnx": {"image_graph": "image.onnx", "score_graph": "score.onnx"},
        "reading": settings.reading.model_dump(exclude={"stops"}) | {"stops": stops},
        "weights": settings.weights,
        **{f"calibration.{n}": {"median": level.median, "scale": level.scale} for n, level in levels.items()},
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names},
    }
    head = {
        "name": settings.name,
        "version": settings.version,
        "family": FAMILY,
        "dimensions": list(DIMENSIONS),
        "runtime": "onnx",
        "evidence": "constructed",
        "license": settings.license,
        "provenance": settings.provenance,
        "uncertainty": UNCERTAINTY,
        **{role: name for role, name in BESIDE.items() if name in names},
    }
    return toml(head, tables)
