"""A run goes on from what a served model holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.training.shapes import tiny_recipe
from medreward.errors import ConfigurationError
from medreward.lab.training.calibrate import NOT_MEASURED
from medreward.lab.training.corpus import Corpus
from medreward.lab.training.export import StoredScorer, as_stored, write_graphs, write_model
from medreward.lab.training.scope import Scope
from medreward.lab.training.start import load_served
from medreward.lab.training.train import assemble
from medreward.types import DIMENSIONS


def test_every_weight_that_learns_comes_back_from_the_graphs(corpus: Corpus, encoder: Path, tmp_path: Path) -> None:
    settings = tiny_recipe(encoder)
    model = assemble(settings, corpus).average
    for value in model.parameters():
        value.data.copy_(torch.randn_like(value))
    stored = as_stored(model, np.ones(len(DIMENSIONS)))
    write_graphs(stored.tower, StoredScorer(stored.scorer, Scope(stored.tower.width, 4)), settings, tmp_path)

    going_on = assemble(settings.model_copy(update={"start": str(tmp_path)}), corpus).average
    learnt = {name: value for name, value in going_on.named_parameters() if value.requires_grad}
    held = dict(stored.named_parameters())
    assert learnt
    for name, value in learnt.items():
        torch.testing.assert_close(value, held[name], rtol=1e-6, atol=1e-6)


def test_a_graph_without_the_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"score\.onnx"):
        load_served(torch.nn.Linear(2, 2), tmp_path / "score.onnx")


def test_a_run_that_is_held_begins_where_its_teacher_stands(corpus: Corpus, encoder: Path, tmp_path: Path) -> None:
    settings = tiny_recipe(encoder)
    model = assemble(settings, corpus).average
    for value in model.parameters():
        value.data.copy_(torch.randn_like(value))
    stored = as_stored(model, np.ones(len(DIMENSIONS)))
    write_model(stored, Scope(stored.tower.width, 4), settings, NOT_MEASURED.levels, [], tmp_path)

    held = settings.pairs.model_copy(update={"hold": dict.fromkeys(DIMENSIONS, 1.0), "forms": 0.5, "hacks": 0.4})
    more = {"start": str(tmp_path), "pairs": held, "tower": settings.tower.model_copy(update={"fixed": "all"})}
    parts = assemble(settings.model_copy(update=more), corpus)
    batch = parts.batches.pairs(0)
    assert parts.teacher
    assert batch.taught
    assert 0 < len(batch.taught.rows) < len(batch.row_image)  # of tricks that stand alone it is not asked
    assert batch.taught.told.max() + 1 < len(batch.taught.rows)  # forms of one answer are all held to the plain one
    itself = replace(
        batch.taught, texts=batch.texts, row_image=batch.row_image, row_shown=batch.row_shown,
        rows=torch.arange(len(batch.row_image)), told=torch.arange(len(batch.row_image)), less=torch.zeros(1),
    )  # fmt: skip
    logits = parts.average.logits(batch.pictures.float(), batch.row_image, batch.row_shown, batch.texts)
    assert parts.teacher.loss(logits, replace(batch, taught=itself)) < 1e-6
    assert parts.teacher.loss(logits, batch) > 1e-4
