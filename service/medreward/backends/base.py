"""The contract between the engine and a backend, which is whatever runs a model."""

import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from medreward.encoding.sizes import Cut
from medreward.types import Phase, Runtime

STRETCH: Final = 64  # tokens that are compared at once


@dataclass(frozen=True, slots=True)
class ModelImage:
    """An image at the model's size, and the digest that stands for it in caches."""

    digest: str
    pixels: NDArray[np.uint8]  # height, width, 3
    tenant: str = ""
    cut: Cut | None = None  # the layout of its tiles, which then lie one below the other

    @property
    def key(self) -> str:
        """The key of what caches keep of this image. It holds the tenant, so that no tenant learns what others sent."""
        return f"{self.tenant}/{self.digest}"


@dataclass(frozen=True, slots=True)
class Group:
    """The images and the prompt of one item, and the answers that branch off them, as token ids.

    `further` are the images behind the first, in the order in which the prompt shows them.
    """

    image: ModelImage | None
    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]
    further: tuple[ModelImage, ...] = ()
    expert: str = ""  # of the model, who scores it; empty for the model itself

    @property
    def images(self) -> tuple[ModelImage, ...]:
        """All images, in the order in which the prompt shows them."""
        return (self.image, *self.further) if self.image else ()

    @property
    def key(self) -> str:
        """The key of what caches keep of images and prompt together, as one expert reads them."""
        prompt = blake2b(array("Q", self.prompt).tobytes(), digest_size=16).hexdigest()
        return f"{','.join(image.key for image in self.images)}/{prompt}{self.expert}"


@dataclass(frozen=True, slots=True)
class CostModel:
    """How many tokens a device works through for a piece of work. The front reckons with it, and loads no backend."""

    image: int = 0  # for an image of whatever size, once a group
    pixels: int = 0  # of an image seen at its own size cost one; 0 where all have one size
    row: int = 0  # for every answer, beside its own tokens
    pad_to: int = 1  # lengths are rounded up to a multiple
    shares_prompt: bool = False  # the prompt runs once a group, not once an answer
    pads: bool = False  # rows of a batch are padded to its longest
    alike: int = 0  # of two answers to a prompt that begin with so many tokens alike, only the ends are run; 0: never

    def group(self, prompt: int, pixels: int, images: int = 1) -> int:
        """Returns the cost of the group without its answers. `pixels` is the size to the model of all its images
        together, or 0 where it has none."""
        image = pixels // self.pixels if self.pixels else self.image * images if pixels else 0
        return image + (self._padded(prompt) if self.shares_prompt else 0)

    def answer(self, prompt: int, answer: int) -> int:
        """Returns the cost of one answer, from the lengths of its prompt and of itself."""
        return self.row + self._padded(answer if self.shares_prompt else prompt + answer)

    def answers(self, prompt: int, answers: Sequence[Sequence[int]]) -> list[int]:
        """Returns the cost of each answer to a prompt of this length, in order.

        What an answer has in common with an earlier one is counted once where the device runs it once.
        """
        begin_like = trunks(answers, self.alike) if self.alike else [None] * len(answers)
        shared = [trunk[1] if trunk else 0 for trunk in begin_like]
        return [self.answer(prompt, len(ids) - has) for ids, has in zip(answers, shared, strict=True)]

    def _padded(self, length: int) -> int:
        return max(1, -(-length // self.pad_to)) * self.pad_to


def trunks(answers: Sequence[Sequence[int]], least: int) -> list[tuple[int, int] | None]:
    """Returns for each answer an earlier one that begins with at least `least` tokens alike, and how many it shares.

    None stands for an answer that is run whole: nothing begins like it, or the next answer has so much more in common
    with it than with an earlier one that running it whole pays. Only such answers are given as earlier ones.
    """
    found: list[tuple[int, int] | None] = []
    whole: dict[tuple[int, ...], list[int]] = {}
    for index, answer in enumerate(answers):
        earlier = whole.setdefault(tuple(answer[:least]), [])
        trunk = max(((alike(answers[place], answer), -place) for place in earlier), default=(0, 0))
        next_alike = alike(answer, answers[index + 1]) if earlier and index + 1 < len(answers) else 0
        if not earlier or next_alike >= 2 * trunk[0]:
            if len(answer) > least:
                earlier.append(index)
            found.append(None)
        else:
            found.append((-trunk[1], trunk[0]))
    return found


def alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Returns with how many tokens both begin alike, of which the other has at least one more."""
    most, place = min(len(one), len(other) - 1), 0
    while place < most and one[place : place + STRETCH] == other[place : place + STRETCH]:
        place += STRETCH
    return next((at for at in range(place, most) if one[at] != other[at]), most)


@dataclass(slots=True)
class Counts:
    """How much a backend did since its counts were last taken."""

    image_encodes: int = 0  # images run through the vision tower
    image_hits: int = 0  # images whose features were there
    prefix_runs: int = 0  # prompts run through the model
    prefix_hits: int = 0  # prompts whose state was there
    phases: list[Phase] = field(default_factory=list, compare=False)  # parts of the work, as they were done

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Notes the part of the work that is done within it."""
        started = time.monotonic()
        yield
        self.phases.append(Phase(name, started, time.monotonic()))


@dataclass(frozen=True, slots=True)
class RankSeat:
    """The rank of this process, how many ranks share the model, and the file in which they find each other."""

    rank: int
    ranks: int
    meeting_fd: int


#: What the model's heads say of one answer: a row for each head of the ensemble, a column for each dimension of the
#: manifest. A model that knows its scope has one more column: how far the image lies outside of it, below 0 for one
#: like those that the model learnt from.
HeadOutputs = NDArray[np.float32]
Logits = NDArray[np.float32]  # HeadOutputs of all answers of a group, one after the other


class DeviceBroken(Exception):
    """The device answers nothing any more, so the process that holds it must end."""


class Backend(Protocol):
    """Runs a model on one device, in one thread. Only its image, its prompt and itself decide
    an answer's logits.
    """

    @property
    def runtime(self) -> Runtime:
        """The runtime, known once the backend is open."""

    @property
    def cost(self) -> CostModel:
        """What groups and answers cost on this device."""

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        """Returns an array of logits for each group, in order. It may fail with whatever its library raises,
        and with DeviceBroken where it can score nothing any more.
        """

    def warm_up(self) -> None:
        """Runs everything once that is slow the first time."""

    def release(self) -> None:
        """Frees as much memory of the device as it can, because a batch found too little."""

    def rest(self) -> None:
        """Gives the device's memory back for something else to use it. The weights stay in this machine's memory."""

    def resume(self) -> None:
        """Takes the device again after `rest`. What it scores then has the same bits as before."""

    def take_counts(self) -> Counts:
        """Returns the counts since the last call, and starts new ones at 0."""
