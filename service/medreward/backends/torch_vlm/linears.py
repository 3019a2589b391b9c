"""Linear layers for a CPU, whose weights are laid out for oneDNN once instead of at every product.

Beside the time, this is what makes a token's result in bf16 independent of how many others are in the forward: without
it, the kernels choose another order of summation for another number of rows.
"""

import platform
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, distributed, nn

CPU: Final = Path("/proc/cpuinfo")
TILE: Final = 128  # rows of a product where the kernel's order of summation depends on their number


class PackedLinear(nn.Module):
    """A linear layer without its unpacked weight."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()
        # oneDNN's kernels for AMX do as MKL's do; all its others keep to one order, but for a single row.
        self._in_tiles = self.weight.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, self.in_features)
        if self._in_tiles:
            products = torch.cat(
                [self._of_some(rows[start : start + TILE], TILE) for start in range(0, len(rows), TILE)]
            )
        else:
            products = self._of_some(rows, 2)
        return products.view(*inputs.shape[:-1], self.out_features)

    def _of_some(self, rows: Tensor, least: int) -> Tensor:
        """Returns the products of these rows, computed as one of as many that are at least `least`."""
        lack = least - len(rows)
        rows = nn.functional.pad(rows, (0, 0, 0, lack)) if lack > 0 else rows
        products: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        return products[:-lack] if lack > 0 else products


def pack_linears(module: nn.Module) -> None:
    """Replaces the linear layers within the module where packed weights are better. Layers that ranks share stay as
    they are: transformers has hung their communication on them.
    """
    better = set() if distributed.is_initialized() else dtypes_to_pack()
    for parent in [*module.modules()]:
        for name, child in parent.named_children():
            if type(child) is nn.Linear and child.weight.device.type == "cpu" and child.weight.dtype in better:
                setattr(parent, name, PackedLinear(child))


def dtypes_to_pack() -> set[torch.dtype]:
    """Returns the types of weights for which oneDNN's packed kernels are there and better on this machine's CPU."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch._C._has_mkldnn:
        return set()
    cpu = CPU.read_text() if CPU.exists() else ""
    better = set() if "GenuineIntel" in cpu else {torch.float32}  # MKL is as fast as oneDNN on Intel's CPUs alone
    return better | ({torch.bfloat16} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else set())


def packed_bytes(module: nn.Module) -> int:
    """Returns how many bytes the packed weights within the module hold, which are no parameters of it."""
    return sum(part.weight.nbytes for part in module.modules() if isinstance(part, PackedLinear))
