"""The whole contract between the engine and whatever runs a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medreward.types import Runtime


@dataclass(frozen=True, slots=True)
class ModelImage:
    """An image at the model's size, and the digest that stands for it in caches."""

    digest: str
    pixels: NDArray[np.uint8]  # height, width, 3
    tenant: str = ""

    @property
    def key(self) -> str:
        """Where caches keep what they know of it: one tenant's look-ups tell nothing of another's."""
        return f"{self.tenant}/{self.digest}"


@dataclass(frozen=True, slots=True)
class Group:
    """One image and one prompt, and the answers that branch off them, as token ids."""

    image: ModelImage | None
    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class CostModel:
    """What work costs on a device, in tokens it works through; known in front, where no backend is loaded."""

    image: int = 0  # for an image of whatever size, once a group
    pixels: int = 0  # of an image seen at its own size cost one; 0 where all have one size
    row: int = 0  # for every answer, beside its own tokens
    pad_to: int = 1  # lengths are rounded up to a multiple
    shares_prompt: bool = False  # the prompt runs once a group, not once an answer
    pads: bool = False  # rows of a batch are padded to its longest

    def group(self, prompt: int, pixels: int) -> int:
        """What the group costs beside its answers; `pixels` are those of its image as the model sees it, if any."""
        image = pixels // self.pixels if self.pixels else self.image if pixels else 0
        return image + (self._padded(prompt) if self.shares_prompt else 0)

    def answer(self, prompt: int, answer: int) -> int:
        return self.row + self._padded(answer if self.shares_prompt else prompt + answer)

    def _padded(self, length: int) -> int:
        return max(1, -(-length // self.pad_to)) * self.pad_to


@dataclass(slots=True)
class Counts:
    """What a backend did since it was last asked."""

    image_encodes: int = 0  # images run through the vision tower
    image_hits: int = 0  # images whose features were there
    prefix_runs: int = 0  # prompts run through the model
    prefix_hits: int = 0  # prompts whose state was there


@dataclass(frozen=True, slots=True)
class RankSeat:
    """Which rank this process is among those that share a model, and a file through which they find each other."""

    rank: int
    ranks: int
    meeting_fd: int


#: What the model's heads say of one answer: a row for each head of the ensemble, a column for each dimension of the
#: manifest. A model that knows its scope has one more column: how far the image lies outside of it, below 0 for one
#: like those that the model learnt from.
HeadOutputs = NDArray[np.float32]
Logits = NDArray[np.float32]  # HeadOutputs of all answers of a group, one after the other


class Backend(Protocol):
    """Runs on one device, in one thread. The logits of an answer depend on nothing but its image, prompt and itself."""

    @property
    def runtime(self) -> Runtime:
        """What runs the model here; it is known once the backend is open."""

    @property
    def cost(self) -> CostModel: ...

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        """One array a group, in order."""

    def warm_up(self) -> None:
        """Run once whatever is slow the first time."""

    def release(self) -> None:
        """Give back what memory of the device it can: a batch found too little."""

    def take_counts(self) -> Counts:
        """The counts since the last call, which start again from nothing."""
