"""Pixels to visual tokens: a small residual network, then self-attention over its coarsest grid."""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medreward.lab.training import recipe
from medreward.lab.training.attention import attend
from medreward.lab.training.lite import Lite, Scaled


class Convolution(nn.Module):
    """Convolution and batch normalisation."""

    def __init__(self, inside: int, outside: int, stride: int = 1, size: int = 3) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(inside, outside, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        after: Tensor = self.norm(self.weigh(x))
        return after

    def fold(self) -> None:
        """Puts the norm inside the convolution's weights, once it is trained."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.weigh = fuse_conv_bn_eval(self.weigh.eval(), self.norm.eval())
            self.norm = nn.Identity()  # type: ignore[assignment]


class Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = Convolution(inside, outside, stride)
        self.second = Convolution(outside, outside)
        nn.init.zeros_(self.second.norm.weight)
        same = inside == outside and stride == 1
        self.short = nn.Identity() if same else Convolution(inside, outside, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        after: Tensor = nn.functional.relu(self.short(x) + self.second(nn.functional.relu(self.first(x))))
        return after


class SelfAttention(nn.Module):
    """A transformer layer that normalises first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        packed = self.project_in(self.norm(x)).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.project_out(attend(query, key, value))
        after: Tensor = x + self.mlp(x)
        return after


class Tower(nn.Module):
    def __init__(self, shape: recipe.Tower, width: int) -> None:
        super().__init__()
        self.width = width
        self.fixed = shape.fixed
        self.lite = Lite() if shape.start else None
        if not shape.start:
            self._convolve(shape)
        last = self.lite.channels if self.lite else shape.widths[-1]
        self.project = nn.Linear(last, width)
        self.places = nn.Parameter(0.02 * torch.randn((shape.side // 32) ** 2, width))
        self.layers = nn.Sequential(*(SelfAttention(width, width // 32) for _ in range(shape.attention_layers)))
        self.norm = nn.LayerNorm(width)
        if shape.fixed == "all":
            self.requires_grad_(False)
        elif shape.fixed == "trunk":
            for part in (
                (self.lite.stem, *self.lite.blocks[: self.lite.fine_blocks]) if self.lite else (self.stem, self.stages)
            ):
                part.requires_grad_(False)

    def _convolve(self, shape: recipe.Tower) -> None:
        first = shape.widths[0]
        self.stem = nn.Sequential(
            Convolution(3, first // 2, 2), nn.ReLU(), Convolution(first // 2, first, 2), nn.ReLU()
        )
        stages: list[nn.Module] = []
        inside = first
        for stage, (outside, blocks) in enumerate(zip(shape.widths, shape.blocks, strict=True)):
            for block in range(blocks):
                stages.append(Residual(inside, outside, 2 if stage and not block else 1))
                inside = outside
        self.stages = nn.Sequential(*stages)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turns uint8 [n, height, width, 3] into tokens [n, places and one for the whole, width]."""
        return self._rest(self._trunk(pixels))

    def look(self, pixels: Tensor) -> Tensor:
        """Returns what the fixed part makes of pixels, which need be done once a picture."""
        if self.fixed == "nothing":
            return pixels
        return self._trunk(pixels) if self.fixed == "trunk" else self(pixels)

    def finish(self, looked: Tensor) -> Tensor:
        """Returns the tokens, made from what `look` returned."""
        if self.fixed == "nothing":
            tokens: Tensor = self(looked)
            return tokens
        return self._rest(looked.to(torch.float32)) if self.fixed == "trunk" else looked.to(torch.float32)

    def _trunk(self, pixels: Tensor) -> Tensor:
        picture = pixels.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        if self.lite:
            return self.lite.trunk(picture)
        grid: Tensor = self.stages(self.stem(picture))
        return grid

    def _rest(self, grid: Tensor) -> Tensor:
        if self.lite:
            grid = self.lite.rest(grid)
        local = self.project(grid.flatten(2).transpose(1, 2)) + self.places
        local = self.layers(local)
        tokens: Tensor = self.norm(torch.cat([local.mean(1, keepdim=True), local], 1))
        return tokens


def fold_norms(tower: Tower) -> None:
    """Puts the norms inside the weights of the convolutions, as a served model has them."""
    for part in tower.modules():
        if isinstance(part, Convolution | Scaled):
            part.fold()
