"""EfficientNet-Lite0, whose weights for ImageNet come in a package, as the convolutions of a tower.

Written from the published table of its blocks. Three things are easily got wrong: TensorFlow's SAME padding, which for
a stride of 2 puts one row more behind than in front; norms with an epsilon of 1e-3; ReLU6. The norms' statistics stay
as they are, so that a norm is no more than a scale and a shift for each channel.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from medreward.errors import ConfigurationError

EPSILON: Final = 1e-3
STEM: Final = 32
#: Blocks: how many times as wide they are inside, channels, how many of them, stride of the first, side of the kernel.
STAGES: Final = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip
FINE, COARSE = 112, 320  # channels of the maps at 1/16 and 1/32 of the image's side
FINE_STAGES: Final = 5  # of the stages, those that lead to the finer map


class Scaled(nn.Module):
    """A convolution with SAME padding, whose norm is a scale and a shift."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1, depthwise: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.padding = (kernel - 1) // 2 if stride == 1 else 0
        self.more = ((kernel - stride) // 2, (kernel - stride + 1) // 2)  # of a stride of 2: before and behind
        self.groups = inside if depthwise else 1
        self.weight = nn.Parameter(torch.empty(outside, inside // self.groups, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_out")
        self.scale = nn.Parameter(torch.ones(outside))
        self.shift = nn.Parameter(torch.zeros(outside))
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = nn.functional.pad(x, (*self.more, *self.more))
        weight = self.weight if self.folded else self.weight * self.scale[:, None, None, None]
        return nn.functional.conv2d(x, weight, self.shift, self.stride, self.padding, 1, self.groups)

    @torch.no_grad()
    def fold(self) -> None:
        """Puts the scale inside the weight, once it is trained."""
        self.weight.mul_(self.scale[:, None, None, None])
        self.folded = True


class Block(nn.Module):
    """An inverted residual: wider, a convolution in depth, narrower."""

    def __init__(self, inside: int, outside: int, widen: int, stride: int, kernel: int) -> None:
        super().__init__()
        inner = inside * widen
        self.same = inside == outside and stride == 1
        self.expand = Scaled(inside, inner) if widen > 1 else None
        self.depthwise = Scaled(inner, inner, kernel, stride, depthwise=True)
        self.project = Scaled(inner, outside)

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.relu6(self.expand(x)) if self.expand else x
        after: Tensor = self.project(nn.functional.relu6(self.depthwise(inner)))
        return x + after if self.same else after


class Lite(nn.Module):
    """Turns pixels from -1 to 1 into the map at 1/32 of the side; each place has the four finer ones that it covers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Scaled(3, STEM, 3, 2)
        self.blocks = nn.ModuleList()
        inside = STEM
        for widen, outside, count, stride, kernel in STAGES:
            for number in range(count):
                self.blocks.append(Block(inside, outside, widen, 1 if number else stride, kernel))
                inside = outside
        self.fine_blocks = sum(stage[2] for stage in STAGES[:FINE_STAGES])
        self.channels = COARSE + 4 * FINE

    def trunk(self, picture: Tensor) -> Tensor:
        """Returns the finer map. Convolutions in depth gain nothing from bf16 and lose time to its conversions."""
        with torch.autocast(picture.device.type, enabled=False):
            x = nn.functional.relu6(self.stem(picture))
            for block in self.blocks[: self.fine_blocks]:
                x = block(x)
            return x

    def rest(self, x: Tensor) -> Tensor:
        """Returns both maps joined, made from the finer one."""
        with torch.autocast(x.device.type, enabled=False):
            fine = nn.functional.pixel_unshuffle(x, 2)
            for block in self.blocks[self.fine_blocks :]:
                x = block(x)
            return torch.cat([x, fine], 1)


def load_lite(lite: Lite, package: str) -> None:
    """Loads the package's weights; its pixels are (x - 127) / 128, near enough to from -1 to 1."""
    spec = find_spec(package) if package.isidentifier() else None
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if len(files) != 1:
        raise ConfigurationError(f"no weights of EfficientNet-Lite0 in an installed package {package!r}")
    source = torch.load(files[0], weights_only=True)
    state = _scaled(source, "_conv_stem", "_bn0", "stem")
    for place, block in enumerate(lite.blocks):
        parts = [("depthwise", "_depthwise_conv", "_bn1"), ("project", "_project_conv", "_bn2")]
        if isinstance(block, Block) and block.expand:
            parts.append(("expand", "_expand_conv", "_bn0"))
        for ours, weight, norm in parts:
            theirs = f"_blocks.{place}."
            state |= _scaled(source, theirs + weight, theirs + norm, f"blocks.{place}.{ours}")
    lite.load_state_dict(state)


def _scaled(source: dict[str, Tensor], convolution: str, norm: str, ours: str) -> dict[str, Tensor]:
    scale = source[f"{norm}.weight"] / (source[f"{norm}.running_var"] + EPSILON).sqrt()
    return {
        f"{ours}.weight": source[f"{convolution}.weight"],
        f"{ours}.scale": scale,
        f"{ours}.shift": source[f"{norm}.bias"] - source[f"{norm}.running_mean"] * scale,
    }
