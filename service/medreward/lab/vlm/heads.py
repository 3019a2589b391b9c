"""Heads that learn, in the form in which `backends/torch_vlm/heads.py` reads them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import silu

from medreward.errors import ConfigurationError
from medreward.lab.vlm.recipe import Heads
from medreward.types import DIMENSIONS


class RewardHeads(nn.Module):
    """An ensemble of linear or two-layer heads: states of answers to logits by answer, head and dimension."""

    def __init__(self, settings: Heads, width: int) -> None:
        super().__init__()
        inside = width if settings.layers == 1 else settings.inner
        self.weight = nn.Parameter(torch.randn(settings.count, len(DIMENSIONS), inside) * inside**-0.5)
        self.bias = nn.Parameter(torch.zeros(settings.count, len(DIMENSIONS)))
        self.inner = nn.ParameterDict()
        if settings.layers == 2:
            self.inner["weight"] = nn.Parameter(torch.randn(settings.count, inside, width) * width**-0.5)
            self.inner["bias"] = nn.Parameter(torch.zeros(settings.count, inside))

    def forward(self, hidden: Tensor) -> Tensor:
        if self.inner:
            hidden = silu(torch.einsum("nw,hiw->nhi", hidden, self.inner["weight"]) + self.inner["bias"])
            return torch.einsum("nhi,hdi->nhd", hidden, self.weight) + self.bias
        return torch.einsum("nw,hdw->nhd", hidden, self.weight) + self.bias

    @torch.no_grad()
    def start_from(self, trained: Mapping[str, Tensor]) -> None:
        """Takes over the weights of a head that is there; fails with a ConfigurationError for one of another form.

        A linear head starts an ensemble: all but its first keep a tenth of their random start, so that they differ. One
        of a single number becomes all six, which is a better start than chance.
        """
        own = self.state_dict()
        if {name: value.shape for name, value in own.items()} == {n: w.shape for n, w in trained.items()}:
            self.load_state_dict(dict(trained))
            return
        if self.inner or set(trained) != {"weight", "bias"}:
            raise ConfigurationError(
                "the base has a head of another form than [heads] asks for; only a linear head starts another one"
            )
        spread = torch.full((len(self.weight), 1, 1), 0.1)
        spread[0] = 0.0
        self.weight.mul_(spread).add_(trained["weight"][:1])
        self.bias.copy_(trained["bias"][:1].expand_as(self.bias))

    @torch.no_grad()
    def divide(self, temperatures: Tensor) -> None:
        """Divides the logits of each dimension by its temperature."""
        self.weight.div_(temperatures[:, None])
        self.bias.div_(temperatures)

    def save(self, path: Path) -> None:
        """Writes the file that a manifest names as its head."""
        save_file({name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}, path)
