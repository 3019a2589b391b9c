"""The model that learns: images, prompts and answers to logits, as the server's backend runs them, with gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medreward.backends.base import Group
from medreward.backends.torch_vlm.backbone import Backbone, Features
from medreward.lab.vlm.heads import RewardHeads


class Scorer(nn.Module):
    """Runs each image once, each image with its question once, and branches the answers off that state.

    With `share` false each answer runs in one forward with its image and question, as transformers does it. Both ways
    have the same loss and gradient.
    """

    def __init__(self, backbone: Backbone, heads: RewardHeads, share: bool = True) -> None:
        super().__init__()
        self.base: nn.Module = backbone.base
        self.heads = heads
        self._backbone = backbone
        self._share = share

    def forward(self, groups: Sequence[Group]) -> Tensor:
        """Returns the logits of all answers, one group after the other: by answer, head and dimension."""
        hidden = self._shared(groups) if self._share else self._apart(groups)
        with torch.autocast(hidden.device.type, enabled=False):  # heads are fp32, here as in the server
            logits: Tensor = self.heads(hidden.float())
        return logits

    def _shared(self, groups: Sequence[Group]) -> Tensor:
        features = self._features(groups)
        ends: dict[int, Tensor] = {}
        for has_image in (True, False):
            places = [place for place, group in enumerate(groups) if bool(group.image) == has_image]
            some = [groups[place] for place in places]
            if not some:
                continue
            follow = [group.answers[0] if len(group.answers) == 1 else () for group in some]
            images = [[features[image.key] for image in group.images] for group in some] if has_image else []
            ran = self._backbone.prefixes([group.prompt for group in some], images, follow)
            branches = [(place, state) for place, (state, _) in zip(places, ran, strict=True)]
            branches = [(place, state) for place, state in branches if len(groups[place].answers) > 1]
            ends |= {
                place: last[None]
                for place, (_, last) in zip(places, ran, strict=True)
                if len(groups[place].answers) == 1
            }
            if branches:
                states = self._backbone.answers([(state, groups[place].answers) for place, state in branches])
                ends |= {place: of_one[:, 0] for (place, _), of_one in zip(branches, states, strict=True)}
        return torch.cat([ends[place] for place in range(len(groups))])

    def _features(self, groups: Sequence[Group]) -> dict[str, Features]:
        images = {image.key: image for group in groups for image in group.images}
        return {key: self._backbone.encode(self._backbone.prepare(image), image.cut) for key, image in images.items()}

    def _apart(self, groups: Sequence[Group]) -> Tensor:
        ends: dict[int, Tensor] = {}
        for has_image in (True, False):
            places = [place for place, group in enumerate(groups) if bool(group.image) == has_image]
            rows: list[tuple[int, Any]] = [(place, answer) for place in places for answer in groups[place].answers]
            if not rows:
                continue
            images = [groups[place].images for place, _ in rows] if has_image else []
            prompts = [groups[place].prompt for place, _ in rows]
            states = self._backbone.whole(images, prompts, [answer for _, answer in rows])
            for place in places:
                ends[place] = states[[number for number, (at, _) in enumerate(rows) if at == place]]
        return torch.cat([ends[place] for place in range(len(groups))])
