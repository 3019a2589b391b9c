"""The attention of answers that branch off prompts: all of a forward's tokens lie end to end, and each branch looks at
its own past alone.

transformers calls it by its name in every layer, as it calls its own kernels. A dense mask over all tokens would say
the same, but then every answer is compared with every other, and the state of a prompt is copied for each row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BRANCHES: Final = "medreward_branches"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The state of a prompt that answers branch off."""

    layers: Sequence[tuple[Tensor, Tensor]]  # keys and values: heads, tokens, width
    start: int  # position of an answer's first token

    @property
    def length(self) -> int:
        return int(self.layers[0][0].shape[1])

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


class Past:
    """What one branch of a forward looks at."""

    def __init__(self, prefix: Prefix, parent: slice, own: slice) -> None:
        """`own` are the branch's places among the forward's tokens, `parent` those of its parent that it sees."""
        self._prefix = prefix
        self._parent = parent
        self.own = own
        self._masks: dict[int | None, Tensor] = {}  # by how far a layer looks back

    def keys_and_values(self, layer: int, key: Tensor, value: Tensor) -> list[Tensor]:
        """Returns all that the branch sees in the layer, in the order of positions, of which its own are the last."""
        return [
            torch.cat([state, new[0, :, self._parent], new[0, :, self.own]], 1)[None]
            for state, new in zip(self._prefix.layers[layer], (key, value), strict=True)
        ]

    def mask(self, window: int | None, seen: int, like: Tensor) -> Tensor:
        """Returns what is added to the products of its tokens with the `seen` last before and up to their end."""
        if window not in self._masks:
            shape = (self.own.stop - self.own.start, seen)
            allowed = torch.ones(shape, dtype=torch.bool, device=like.device).tril(shape[1] - shape[0])
            if window:
                allowed = allowed.triu(shape[1] - shape[0] - window + 1)
            zeros = torch.zeros(shape, dtype=like.dtype, device=like.device)
            self._masks[window] = zeros.masked_fill_(~allowed, -torch.inf)
        return self._masks[window]


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    pasts: Sequence[Past] | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Returns what the tokens see in this layer, as any attention function of transformers does. Without `pasts` it is
    transformers' own.
    """
    if pasts is None:
        others |= {"scaling": scaling, "sliding_window": sliding_window}
        plain: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **others)
        return plain
    seen = []
    for past in pasts:
        keys, values = past.keys_and_values(module.layer_idx, key, value)
        mask = past.mask(sliding_window, keys.shape[2], query)
        if query.device.type != "cpu":  # the kernels there that take a mask take as many heads of keys as of queries
            keys, values = (each.repeat_interleave(query.shape[1] // key.shape[1], 1) for each in (keys, values))
        own = query[:, :, past.own]
        seen.append(scaled_dot_product_attention(own, keys, values, mask, scale=scaling, enable_gqa=True))
    return torch.cat(seen, 2).transpose(1, 2), None


AttentionInterface.register(BRANCHES, attend)
AttentionMaskInterface.register(BRANCHES, sdpa_mask)
