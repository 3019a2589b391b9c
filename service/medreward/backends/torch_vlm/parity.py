"""A checkpoint in our hands against the same in transformers' own: what `medreward doctor --parity` asks."""

from collections.abc import Sequence
from typing import Final

import torch

from medreward.backends.base import Group
from medreward.backends.torch_vlm.backend import TorchVlmBackend

#: The largest difference of a logit that is no fault. Of bf16 nothing was measured yet: this finds gross faults only.
TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 0.25}


@torch.inference_mode()
def differences(backend: TorchVlmBackend, groups: Sequence[Group]) -> list[float]:
    """For each group the largest difference of a logit, when every answer is one forward of a whole sequence."""
    found = []
    for group, logits in zip(groups, backend.score(groups), strict=True):
        images = [group.image.pixels] if group.image else []
        ends = backend.heads.tails or [()]
        whole = [
            torch.cat([backend.backbone.whole(images, [group.prompt], [[*answer, *end]]) for end in ends])
            for answer in group.answers
        ]
        plain = backend.heads(torch.stack(whole)).cpu()
        found.append(float((plain - torch.from_numpy(logits)).abs().max()))
    return found
