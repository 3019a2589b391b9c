"""What leaves training is what the server runs."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.training.shapes import tiny_recipe
from medreward.artifacts.manifest import Calibration, Manifest
from medreward.artifacts.repository import verify
from medreward.backends.base import Group, ModelImage
from medreward.backends.onnx import OnnxBackend
from medreward.lab.training.corpus import Corpus
from medreward.lab.training.export import Example, as_stored, write_model
from medreward.lab.training.images import fitted
from medreward.lab.training.model import Model
from medreward.lab.training.scope import Scope, summary
from medreward.lab.training.served import Picture, Row, Served
from medreward.lab.training.size import latency, size
from medreward.lab.training.train import assemble
from medreward.types import DIMENSIONS
from pictures import png
from serving import running

QUESTION, RESPONSE = "What shape is shown?", "The image shows a square."
Exported = tuple[Path, Manifest, Model]


@pytest.fixture(scope="module")
def exported(corpus: Corpus, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    settings = tiny_recipe(encoder)
    model = assemble(settings, corpus).average
    torch.nn.init.normal_(model.scorer.head.second.weight)  # zeros until something is learnt
    model = as_stored(model, np.full(len(DIMENSIONS), 0.5))
    levels = dict.fromkeys(DIMENSIONS, Calibration(median=0.1, scale=1.5))
    examples = [Example(png(1), QUESTION, RESPONSE), Example(None, QUESTION, "No.")]
    folder = tmp_path_factory.mktemp("exported")
    (folder / "measured.json").write_text("{}")  # left by an export that was measured
    return folder, write_model(model, Scope(model.tower.width, 4), settings, levels, examples, folder), model


def test_every_file_is_the_one_in_the_manifest(exported: Exported) -> None:
    folder, manifest, _ = exported
    assert verify(folder, manifest) == {}
    assert {path.name for path in folder.iterdir()} == {*manifest.files, "model.toml"}
    assert "Nothing was measured" in (folder / "card.md").read_text()


def test_storing_divides_logits_by_their_temperature_and_changes_little_else(corpus: Corpus, encoder: Path) -> None:
    model = assemble(tiny_recipe(encoder), corpus).average
    torch.nn.init.normal_(model.scorer.head.second.weight)
    torch.nn.init.normal_(model.scorer.head.second.bias)
    ids, shown = torch.tensor([[2, 40, 50, 3, 41, 42, 3]]), torch.ones(1)
    pixels = torch.from_numpy(fitted(png(2), 64)[None])
    with torch.inference_mode():
        trained = model.scorer(model.tower(pixels), shown, ids, torch.ones_like(ids)).mean(1)
    stored = as_stored(model, np.array([0.5, 1.0, 2.0, 4.0, 1.0, 0.25]))
    with torch.inference_mode():
        divided = stored.scorer(stored.tower(pixels), shown, ids, torch.ones_like(ids)).mean(1)
    np.testing.assert_allclose(divided, trained / torch.tensor([0.5, 1.0, 2.0, 4.0, 1.0, 0.25]), atol=0.1, rtol=0.02)


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("length", [3, 20, 60])
def test_graphs_equal_the_model_they_were_made_of(exported: Exported, shown: bool, length: int) -> None:
    folder, manifest, model = exported
    pixels = fitted(png(2), manifest.one_size.width)
    ids = [2, 40, 50, 3, *range(40, 40 + length), 3]
    backend = OnnxBackend(folder, manifest, "cpu", threads=1)
    found = backend.score([Group(ModelImage("a", pixels) if shown else None, ids[:4], [ids[4:]])])[0]
    with torch.inference_mode():
        row, mask = torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64)
        tokens = model.tower(torch.from_numpy(pixels[None]))
        expected = model.scorer(tokens, torch.tensor([float(shown)]), row, mask)
    np.testing.assert_allclose(found[:, :, :6], expected.numpy(), atol=1e-4)
    assert found[0, 0, 6] == pytest.approx(summary(tokens).square().sum().item() - 1.0 if shown else 0.0, abs=1e-3)


def test_graphs_store_halves_and_bytes(exported: Exported) -> None:
    folder, _, model = exported
    numbers = sum(value.numel() for value in (*model.tower.parameters(), *model.scorer.parameters()))
    stored = sum((folder / name).stat().st_size for name in ("image.onnx", "score.onnx"))
    assert stored < 3.0 * numbers + 120_000  # the graphs themselves take the rest


def test_rows_are_answered_together_as_one_by_one(exported: Exported) -> None:
    folder, manifest, _ = exported
    reads: list[int] = []
    told: list[tuple[int, int]] = []

    def read() -> bytes:
        reads.append(1)
        return png(3)

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    rows = [
        Row(Picture("a", read), QUESTION, RESPONSE),
        Row(None, QUESTION, RESPONSE),
        Row(Picture("b", lambda: png(4)), QUESTION, "No."),
        Row(Picture("a", read), "Where is it?", RESPONSE),
        Row(Picture("a", read), QUESTION, "No."),
        Row(Picture("a", read), QUESTION, RESPONSE),
    ]
    together = Served(folder, manifest, threads=2, progress=tell)(rows)
    assert len(reads) == 1
    assert told[-1] == (5, 5)
    alone = Served(folder, manifest, threads=1)
    np.testing.assert_array_equal(together, np.concatenate([alone([row]) for row in rows]))


def test_size_and_times_are_of_the_folder(exported: Exported) -> None:
    folder, manifest, model = exported
    found = size(folder, manifest)
    numbers = sum(value.numel() for part in (model.tower, model.scorer) for value in part.state_dict().values())
    assert found["parameters"] == pytest.approx(numbers, rel=0.05)
    assert found["bytes"] == sum((folder / n).stat().st_size for n in ("image.onnx", "score.onnx", "tokenizer.json"))
    times = latency(folder, manifest, times=1)
    assert [*times] == ["one_new_image", "one_cached_image", "eight_new_image", "eight_cached_image"]
    assert all(value > 0 for value in times.values())


async def test_the_server_takes_the_folder_and_gives_its_golden_scores(exported: Exported) -> None:
    folder, _, _ = exported
    golden = json.loads((folder / "golden.json").read_text())[0]
    body = {"image": golden["image"], "question": QUESTION, "response": RESPONSE}
    async with running(model=str(folder)) as server:
        result = (await server.rest.post("/score", json=body)).raise_for_status().json()["results"][0]
    assert result["logits"] == pytest.approx(golden["logits"], abs=1e-4)
    assert result["scores"]["overall"] == pytest.approx(1 / (1 + np.exp(-(result["logits"]["overall"] - 0.1) / 1.5)))
    assert result["uncertainty"]["overall"] > 0
    assert base64.b64decode(golden["image"]) == png(1)
