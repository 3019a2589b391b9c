"""EfficientNet-Lite0 is read as its package writes it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medreward.errors import ConfigurationError
from medreward.lab.training.lite import STAGES, Lite, load_lite
from medreward.lab.training.recipe import Tower as Shape
from medreward.lab.training.tower import Tower, fold_norms

SIDE = 64


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's SAME padding by its definition."""
    total = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
    before = total // 2
    return nn.functional.pad(x, (before, total - before, before, total - before))


def state() -> dict[str, Tensor]:
    """Random weights under the names of the package, of size such that the maps neither fade nor explode."""
    dice = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}

    def convolution(name: str, norm: str, outside: int, inside: int, kernel: int) -> None:
        shape = outside, inside, kernel, kernel
        found[f"{name}.weight"] = torch.randn(shape, generator=dice) * (2 / (inside * kernel**2)) ** 0.5
        found[f"{norm}.weight"] = 0.5 + torch.rand(outside, generator=dice)
        found[f"{norm}.bias"] = 0.2 * torch.randn(outside, generator=dice)
        found[f"{norm}.running_mean"] = 0.1 * torch.randn(outside, generator=dice)
        found[f"{norm}.running_var"] = 0.002 + torch.rand(outside, generator=dice)

    convolution("_conv_stem", "_bn0", 32, 3, 3)
    inside, place = 32, 0
    for widen, outside, count, _, kernel in STAGES:
        for _ in range(count):
            inner, name = inside * widen, f"_blocks.{place}"
            if widen > 1:
                convolution(f"{name}._expand_conv", f"{name}._bn0", inner, inside, 1)
            convolution(f"{name}._depthwise_conv", f"{name}._bn1", inner, 1, kernel)
            convolution(f"{name}._project_conv", f"{name}._bn2", outside, inner, 1)
            inside, place = outside, place + 1
    return {name: value.double() for name, value in found.items()}


def published(weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The maps at 1/16 and 1/32, by the table and the layers that it names."""

    def step(x: Tensor, name: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        x = nn.functional.conv2d(same(x, weight.shape[-1], stride), weight, None, stride, 0, 1, groups)
        mean, var, scale, shift = (
            weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return nn.functional.batch_norm(x, mean, var, scale, shift, eps=1e-3)

    x = step(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
    place, fine = 0, x
    for number, (widen, _, count, first, _) in enumerate(STAGES):
        for block in range(count):
            name, stride, before = f"_blocks.{place}", 1 if block else first, x
            if widen > 1:
                x = step(x, f"{name}._expand_conv", f"{name}._bn0").clamp(0, 6)
            x = step(x, f"{name}._depthwise_conv", f"{name}._bn1", stride, x.shape[1]).clamp(0, 6)
            x = step(x, f"{name}._project_conv", f"{name}._bn2")
            x = x + before if block else x
            place += 1
        if number == 4:
            fine = x
    return fine, x


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "lite_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    torch.save(state(), folder / "models" / "lite.pth")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return "lite_weights"


def test_both_maps_are_those_of_the_published_network(package: str) -> None:
    lite = Lite().double()  # random weights as deep as that make much of a rounding
    load_lite(lite, package)
    picture = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 3, SIDE, SIDE)))
    with torch.inference_mode():
        joined = lite.rest(lite.trunk(picture))
        fine, coarse = published(state(), picture)
    assert fine.shape == (2, 112, SIDE // 16, SIDE // 16)
    assert joined.shape == (2, 320 + 4 * 112, SIDE // 32, SIDE // 32)
    torch.testing.assert_close(joined[:, :320], coarse, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(joined[:, 320:], nn.functional.pixel_unshuffle(fine, 2), rtol=1e-6, atol=1e-6)


def test_a_tower_with_folded_norms_gives_the_same_tokens(package: str) -> None:
    tower = Tower(Shape(side=SIDE, start=package), 32).eval()
    with torch.no_grad():
        for name, value in tower.named_parameters():
            if name.endswith("scale"):
                value.uniform_(0.5, 1.0)
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8))
    with torch.inference_mode():
        before = tower(pixels)
        fold_norms(tower)
        assert before.shape == (2, 1 + (SIDE // 32) ** 2, 32)
        torch.testing.assert_close(tower(pixels), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fixed", ["nothing", "trunk", "all"])
def test_what_is_fixed_is_not_learnt_and_the_tokens_are_the_same(package: str, fixed: str) -> None:
    tower = Tower(Shape.model_validate({"side": SIDE, "start": package, "fixed": fixed}), 32)
    assert tower.lite
    load_lite(tower.lite, package)
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8))
    torch.testing.assert_close(tower.finish(tower.look(pixels)), tower(pixels))
    learns = {
        name.split(".")[0] if "blocks" not in name else name.split(".")[2]
        for name, value in tower.named_parameters()
        if value.requires_grad
    }
    assert ("0" in learns, "15" in learns, "project" in learns) == {
        "nothing": (True, True, True), "trunk": (False, True, True), "all": (False, False, False)
    }[fixed]  # fmt: skip


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no_such_package"):
        load_lite(Lite(), "no_such_package")
