"""A run goes on from what a served model holds."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.training.shapes import tiny_recipe
from medreward.errors import ConfigurationError
from medreward.lab.training.corpus import Corpus
from medreward.lab.training.export import StoredScorer, as_stored, write_graphs
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
