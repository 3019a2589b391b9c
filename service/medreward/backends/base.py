"""The whole contract between the engine and whatever runs a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModelImage:
    """An image at the model's size, and the digest that stands for it in caches."""

    digest: str
    pixels: NDArray[np.uint8]  # height, width, 3


@dataclass(frozen=True, slots=True)
class Group:
    """One image and one prompt, and the answers that branch off them, as token ids."""

    image: ModelImage | None
    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]


Logits = NDArray[np.float32]  # answers, heads of the ensemble, six dimensions


class Backend(Protocol):
    """Runs on one device, in one thread. The logits of an answer depend on nothing but its image, prompt and itself."""

    @property
    def runtime(self) -> str:
        """`backend/device/dtype`, such as `onnx/cpu/fp32`."""

    @property
    def image_encodes(self) -> int:
        """Images run through the vision tower since the start; a cached one is not run again."""

    def cost(self, group: Group) -> int:
        """Tokens the device will work through for this group, padding included."""

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        """One array a group, in order."""

    def warm_up(self) -> None:
        """Run once whatever is slow the first time."""
