"""A backend without a model: its logits come from a hash, mean nothing, and are the same for the same triple.

Tests use it, and measurements of everything around the model.
"""

import time
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from medreward.artifacts.image_section import Image
from medreward.artifacts.manifest import Calibration, Manifest, Text
from medreward.backends.base import CostModel, Counts, Group, Logits
from medreward.caches import MIB, ByteCache
from medreward.types import DIMENSIONS, Evidence, Runtime

SPREAD: Final = 1.5  # standard deviation of a logit
UNIFORMS: Final = 4  # 16-bit numbers summed for one logit; the sum is close to normal
STEP: Final = SPREAD / (65536 * (UNIFORMS / 12) ** 0.5)
DIGEST_BYTES: Final = len(DIMENSIONS) * UNIFORMS * 2

FAKE_MANIFEST: Final = Manifest(
    name="fake",
    version="0",
    runtime="fake",
    evidence=Evidence.NONE,
    license="Apache-2.0",
    provenance="numbers from a hash of the inputs; they mean nothing",
    image=Image(width=224, height=224),
    text=Text(prompt=("{question}",), answer=("{response}",), max_tokens=4096),
    weights={dimension: 1 / len(DIMENSIONS) for dimension in DIMENSIONS},
    calibration={dimension: Calibration(median=0.0, scale=1.0) for dimension in DIMENSIONS},
)


class FakeBackend:
    """Scores by hashing. It takes `delay_s` for each batch, to stand for a slow device."""

    runtime: Final = Runtime("fake", "cpu", "fp32")
    cost: Final = CostModel(shares_prompt=True)

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._features: ByteCache[NDArray[np.uint8]] = ByteCache(MIB)
        self._prefixes: ByteCache[NDArray[np.uint8]] = ByteCache(MIB)
        self._counts = Counts()

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        with self._counts.timed("prompt"):
            prefixes = [self._prefix(group) for group in groups]
        with self._counts.timed("answers"):
            if self._delay_s:
                time.sleep(self._delay_s)
            return [self._answers(*each) for each in zip(prefixes, groups, strict=True)]

    def _answers(self, prefix: bytes, group: Group) -> Logits:
        digests = b"".join(blake2b(_bytes(a), key=prefix, digest_size=DIGEST_BYTES).digest() for a in group.answers)
        uniforms = np.frombuffer(digests, "<u2").reshape(-1, 1, len(DIMENSIONS), UNIFORMS)
        # Whole numbers up to the one multiplication, so that every machine finds the same bits.
        centred = uniforms.sum(-1, dtype=np.int64) - UNIFORMS * 32768
        logits: Logits = (centred * STEP).astype(np.float32)
        return logits

    def warm_up(self) -> None:
        """Nothing here is slow the first time."""

    def release(self) -> None:
        """Nothing here is on a device."""

    def rest(self) -> None:
        """Nothing here is on a device."""

    def resume(self) -> None:
        """Nothing here left a device."""

    def take_counts(self) -> Counts:
        counts, self._counts = self._counts, Counts()
        return counts

    def _prefix(self, group: Group) -> bytes:
        """Returns the state that answers branch off. It is kept, and counted, as that of a real model would be."""
        images = ",".join(image.digest for image in group.images)
        state = blake2b(images.encode() + b"|" + _bytes(group.prompt)).digest()
        if self._prefixes.get(group.key) is not None:
            self._counts.prefix_hits += 1
            return state
        self._prefixes.put(group.key, np.frombuffer(state, np.uint8))
        self._counts.prefix_runs += 1
        if group.image and self._features.get(group.image.key) is not None:
            self._counts.image_hits += 1
        elif group.image:
            self._features.put(group.image.key, group.image.pixels[:1, :1].copy())
            self._counts.image_encodes += 1
        return state


class WordTokenizer:
    """Makes each word one token. The ids of control tokens are larger than any that a word can get."""

    control_tokens: Final = {
        marker: 2**32 + index
        for index, marker in enumerate(
            ("<|im_start|>", "<|im_end|>", "<|image_pad|>", "<image>", "<s>", "</s>", "[CLS]", "[SEP]")
        )
    }

    def encode(self, text: str) -> list[int]:
        return [crc32(word.encode()) for word in text.split()]


def _bytes(ids: Sequence[int]) -> bytes:
    return array("Q", ids).tobytes()
