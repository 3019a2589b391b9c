"""Pixels to visual tokens: a small residual network, then self-attention over its coarsest grid."""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medreward.lab.training import recipe
from medreward.lab.training.attention import attend


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
        """The same, once trained, with the norm inside the convolution's weights."""
        self.weigh = fuse_conv_bn_eval(self.weigh, self.norm)
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
        first, *_, last = shape.widths
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
        self.project = nn.Linear(last, width)
        self.places = nn.Parameter(0.02 * torch.randn((shape.side // 32) ** 2, width))
        self.layers = nn.Sequential(*(SelfAttention(width, width // 32) for _ in range(shape.attention_layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 [n, height, width, 3] to tokens [n, places and one for the whole, width]."""
        picture = pixels.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        grid = self.stages(self.stem(picture))
        local = self.project(grid.flatten(2).transpose(1, 2)) + self.places
        local = self.layers(local)
        tokens: Tensor = self.norm(torch.cat([local.mean(1, keepdim=True), local], 1))
        return tokens
