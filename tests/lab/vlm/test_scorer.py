"""One run of image and prompt for both answers has the loss and the gradients of one run for each."""

from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from backends.torch_vlm.checkpoints import SIDE, write_checkpoint
from backends.torch_vlm.tiled import write_tiled
from medreward.backends.base import Group
from medreward.encoding.image import png
from medreward.lab.training.reader import Reader
from medreward.lab.vlm.base import open_to_learn, read_base
from medreward.lab.vlm.examples import Example
from medreward.lab.vlm.loss import counts, step_loss
from medreward.lab.vlm.recipe import Loss, Recipe

QUESTION = "is there a fracture of the left lung ?"
ANSWERS = ("the left lung is normal .", "no large effusion in the lung , yes", "yes")
PAIR = Example("", None, QUESTION, ANSWERS[:2], (1.0, 0.0, 0.5, nan, 1.0, 0.0))
GRADED = Example("", None, QUESTION, ANSWERS[:1], grades=(1.0, 0.2, 0.3, nan, 0.5, 0.9))


def recipe_of(folder: Path, **learn: bool) -> Recipe:
    return Recipe.model_validate(
        {
            "kind": "vlm",
            "name": "x",
            "version": "1",
            "base": str(folder),
            "evidence": "none",
            "license": "x",
            "provenance": "x",
            "weights": {"overall": 1},
            "learn": {"steps": 1, **learn},
            "tune": {"method": "full", "vision": "trained"},
            "heads": {"count": 2},
        }
    )


def groups_of(reader: Reader) -> Sequence[Group]:
    """Two pairs about two images, one about none, and a graded answer."""
    dice = np.random.default_rng(0)
    shapes = (SIDE, SIDE, 3), (SIDE, 2 * SIDE, 3)
    one, other = (reader.image(str(n), png(dice.integers(0, 255, shape, np.uint8))) for n, shape in enumerate(shapes))
    return [
        reader.group(one, QUESTION, ANSWERS[:2]),
        reader.group(other, QUESTION, ANSWERS[1:]),
        reader.group(None, QUESTION, ANSWERS[:2]),
        reader.group(other, "normal ?", ANSWERS[:1]),
    ]


def loss_and_gradients(folder: Path, **learn: bool) -> tuple[float, dict[str, Tensor]]:
    recipe = recipe_of(folder, **learn)
    base = read_base(recipe)
    scorer = open_to_learn(base, recipe, "cpu", torch.float32).scorer
    examples = [PAIR, PAIR, PAIR, GRADED]
    logits = scorer(groups_of(Reader(base.folder, base.manifest)))
    loss = step_loss(logits, examples, torch.ones(4, 2), counts(examples), Loss())
    torch.autograd.backward(loss)
    return loss.item(), {n: weight.grad for n, weight in scorer.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(
    ("family", "write"), [("qwen3_vl", write_checkpoint), ("gemma3", write_checkpoint), ("llava_next", write_tiled)]
)
def test_a_shared_prompt_and_layers_run_again_change_no_gradient(
    family: str, write: Callable[[Path, str], None], tmp_path: Path
) -> None:
    write(tmp_path, family)
    loss, gradients = loss_and_gradients(tmp_path)
    for other in ({"share_prompts": False}, {"gradient_checkpointing": True}):
        again, others = loss_and_gradients(tmp_path, **other)
        assert again == pytest.approx(loss, abs=1e-5)
        assert gradients.keys() == others.keys()
        apart = {name: (gradients[name] - others[name]).abs().max().item() for name in gradients}
        assert max(apart.values()) < 1e-5
    assert max(gradient.abs().max().item() for gradient in gradients.values()) > 0.1
