"""Numbers from a hash: no model, no meaning, but the same for the same triple. For tests and for measuring the rest."""

import time
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final
from zlib import crc32

import numpy as np

from medreward.artifacts.manifest import Calibration, Image, Manifest, Text
from medreward.backends.base import Group, Logits
from medreward.caches import ArrayCache
from medreward.types import DIMENSIONS, Evidence

MIB: Final = 1024 * 1024
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
    runtime: Final = "fake/cpu/fp32"

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._seen: ArrayCache[np.int64] = ArrayCache(MIB)
        self.image_encodes = 0

    def cost(self, group: Group) -> int:
        return max(1, len(group.prompt) + sum(map(len, group.answers)))

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        if self._delay_s:
            time.sleep(self._delay_s)
        for group in groups:
            if group.image and self._seen.get(group.image.digest) is None:
                self._seen.put(group.image.digest, group.image.pixels.sum(dtype=np.int64, keepdims=True))
                self.image_encodes += 1
        return [_logits(group) for group in groups]

    def warm_up(self) -> None:
        """Nothing here is slow the first time."""


class WordTokenizer:
    """A token a word. Control tokens lie beyond what a word can hash to."""

    control_tokens: Final = {
        marker: 2**32 + index
        for index, marker in enumerate(
            ("<|im_start|>", "<|im_end|>", "<|image_pad|>", "<image>", "<s>", "</s>", "[CLS]", "[SEP]")
        )
    }

    def encode(self, text: str) -> list[int]:
        return [crc32(word.encode()) for word in text.split()]


def _logits(group: Group) -> Logits:
    image = group.image.digest if group.image else ""
    prefix = blake2b(image.encode() + b"|" + _bytes(group.prompt)).digest()
    digests = b"".join(blake2b(_bytes(ids), key=prefix, digest_size=DIGEST_BYTES).digest() for ids in group.answers)
    uniforms = np.frombuffer(digests, "<u2").reshape(-1, 1, len(DIMENSIONS), UNIFORMS)
    # Whole numbers up to the one multiplication, so that every machine finds the same bits.
    centred = uniforms.sum(-1, dtype=np.int64) - UNIFORMS * 32768
    logits: Logits = (centred * STEP).astype(np.float32)
    return logits


def _bytes(ids: Sequence[int]) -> bytes:
    return array("Q", ids).tobytes()
