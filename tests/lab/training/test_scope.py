"""What is unlike all that was learnt from is told apart from what is new but alike."""

import numpy as np
import pytest
import torch

from medreward.lab.training.images import Images, fitted
from medreward.lab.training.outsiders import outsiders
from medreward.lab.training.recipe import Tower as Shape
from medreward.lab.training.scope import Scope, fit_scope, summaries
from medreward.lab.training.strangers import strangers
from medreward.lab.training.tower import Tower

SIDE, KNOWN, NEW = 64, 120, 40


@pytest.fixture(scope="module")
def tower() -> Tower:
    torch.manual_seed(0)
    return Tower(Shape(side=SIDE, widths=(8, 16, 24, 32), blocks=(1, 1, 1, 1)), 32).eval()


@pytest.fixture(scope="module")
def images() -> Images:
    """Bright discs of several sizes on black."""
    dice = np.random.default_rng(0)
    row, column = np.mgrid[:SIDE, :SIDE]
    discs = [np.hypot(row - SIDE / 2, column - SIDE / 2) < radius for radius in dice.uniform(8, 24, KNOWN + NEW)]
    grey = np.stack([dice.uniform(150, 250) * disc for disc in discs]).astype(np.uint8)
    return Images(np.repeat(grey[..., None], 3, 3), [str(place) for place in range(KNOWN + NEW)])


@pytest.fixture(scope="module")
def scope(tower: Tower, images: Images) -> Scope:
    names = [str(place) for place in range(KNOWN + NEW)]
    known, new = (summaries(tower, images[part]) for part in (names[:KNOWN], names[KNOWN:]))
    return fit_scope(known, new, summaries(tower, outsiders(SIDE, 10)))


def test_new_images_of_the_kind_are_within(tower: Tower, images: Images, scope: Scope) -> None:
    with torch.inference_mode():
        strange = scope(tower(torch.from_numpy(images[[str(place) for place in range(KNOWN, KNOWN + NEW)]])))
    assert (strange > 0).sum() <= 1


@pytest.mark.parametrize("other", ["noise", "white"])
def test_other_things_are_not(tower: Tower, scope: Scope, other: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
    pixels = torch.from_numpy(noise if other == "noise" else np.full_like(noise, 255))
    with torch.inference_mode():
        assert (scope(tower(pixels)) > 0).all()


def test_pictures_of_the_world_outside_are_not_whatever_their_kind(tower: Tower, scope: Scope) -> None:
    pictures = [fitted(picture.read(), SIDE) for kind, picture in strangers(6) if kind in ("landscape", "page of text")]
    with torch.inference_mode():
        assert (scope(tower(torch.from_numpy(np.stack(pictures)))) > 0).float().mean() > 0.8
