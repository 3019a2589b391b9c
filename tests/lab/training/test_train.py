"""The loop on drawn shapes: it learns to look, stops and goes on, and leaves a model that the server takes."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from lab.training.shapes import tiny_recipe
from medreward.lab.training.batches import PairBatch
from medreward.lab.training.corpus import Corpus
from medreward.lab.training.train import CHECKPOINT, LOG, WEIGHTS, Run, assemble


def run(corpus: Corpus, encoder: Path, out: Path, **more: Any) -> dict[str, Any]:
    return Run(assemble(tiny_recipe(encoder, **more), corpus), out, Console(file=StringIO())).finish()


@pytest.mark.slow
def test_it_learns_what_only_the_image_tells(corpus: Corpus, encoder: Path, tmp_path: Path) -> None:
    accuracy = run(corpus, encoder, tmp_path, warm_up=200, pairs=200)["accuracy"]["all"]
    assert accuracy["seen"]["share"] > 0.7
    assert accuracy["blank"]["share"] < 0.6
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    losses = [line["losses"]["pairs"] for line in lines if "pairs" in line.get("losses", {})]
    assert losses[-1] < losses[0]


def test_a_run_that_stopped_ends_with_the_same_weights(corpus: Corpus, encoder: Path, tmp_path: Path) -> None:
    run(corpus, encoder, tmp_path / "whole")
    for stop_in, step in (("warm_up", 2), ("pairs", 3)):
        with pytest.raises(KeyboardInterrupt):
            interrupted(corpus, encoder, tmp_path / "parts", stop_in, step)
        assert (tmp_path / "parts" / CHECKPOINT).exists()
    run(corpus, encoder, tmp_path / "parts")
    whole, parts = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def interrupted(corpus: Corpus, encoder: Path, out: Path, phase: str, at: int) -> None:
    """A run that checkpoints after every step and is interrupted in the middle."""
    parts = assemble(tiny_recipe(encoder, checkpoint_minutes=1e-9), corpus)
    make = getattr(parts.batches, phase)

    def until(step: int) -> PairBatch:
        if step == at:
            raise KeyboardInterrupt
        batch: PairBatch = make(step)
        return batch

    setattr(parts.batches, phase, until)
    Run(parts, out, Console(file=StringIO())).finish()
