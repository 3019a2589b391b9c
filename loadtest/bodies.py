"""Request bodies that cost the generator next to nothing, and the check of the replies."""

import io
import itertools
import random
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGES = 256
SIDE = 640
QUALITY = 83

# A JPEG opens with SOI; behind it goes a comment of 12 bytes. Both the 6 bytes up to its text and the text itself are
# multiples of 3, so in base64 the text is 16 characters of its own: any 16 digits make another file.
COMMENT_HEAD = b64encode(b"\xff\xd8\xff\xfe\x00\x0e")
STAMP = b"%016d"

VOCABULARY = """
the lung field heart border shadow opacity nodule margin lesion tissue contrast vessel image shows suggests without
evidence of effusion consolidation fracture mass calcification enlargement normal mild moderate severe left right
upper lower lobe apex base likely benign malignant finding follow up recommended clinical correlation compared with
prior study no acute abnormality is seen in region density homogeneous irregular well defined boundary stain cells
"""


def jpegs(count: int = IMAGES, seed: int = 7) -> list[bytes]:
    """Distinct colour images near 60 KB: smooth noise, ellipses and grain."""
    random = np.random.default_rng(seed)
    grain = random.normal(0, 5, (4 * SIDE, SIDE))
    return [_jpeg(random, grain) for _ in range(count)]


def _jpeg(random: np.random.Generator, grain: NDArray[np.float64]) -> bytes:
    coarse = Image.fromarray(random.integers(30, 150, (10, 10), dtype=np.uint8))
    grey = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    for _ in range(6):
        y, x, height, width = random.uniform((0, 0, 25, 25), (SIDE, SIDE, 160, 160))
        inside = ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1
        grey = grey + inside * random.uniform(-50, 70)
    start = int(random.integers(0, 3 * SIDE))
    grey = grey + grain[start : start + SIDE]
    pixels = np.clip(grey[..., None] * random.uniform(0.85, 1.0, 3), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


class Requests:
    """Call it for the next request. The images go round; every response is one that was never sent before."""

    def __init__(
        self, images: Sequence[bytes], *, path: str = "/score", responses: int = 1, cold: bool = False, seed: int = 11
    ) -> None:
        self.images = [b64encode(image[2:]) for image in images]
        self.responses = responses
        self.cold = cold
        self.numbers = itertools.count(time.time_ns() // 1000)  # 16 digits, never the same twice
        self.turns = itertools.cycle(range(len(images)))
        self.random = random.Random(seed)
        words = VOCABULARY.split()
        self.sentences = [" ".join(self.random.choices(words, k=10)).encode() for _ in range(4096)]
        self.questions = [b"What does image %d show, and what would you advise?" % n for n in range(len(images))]
        self.head = (
            b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %%d\r\n\r\n"
            % path.encode()
        )

    def __call__(self) -> tuple[bytes, bytes, bytes]:
        number, turn = next(self.numbers), next(self.turns)
        image = self.images[turn]
        before = (b'{"image":"' if self.responses == 1 else b'{"items":[{"image":"') + COMMENT_HEAD
        before += STAMP % (number if self.cold else turn)
        after = b'","question":"' + self.questions[turn] + self.texts(number)
        return self.head % (len(before) + len(image) + len(after)) + before, image, after

    def texts(self, number: int) -> bytes:
        if self.responses == 1:
            return b'","response":"' + self.response(number, 0) + b'"}'
        responses = [self.response(number, n) for n in range(self.responses)]
        return b'","responses":["' + b'","'.join(responses) + b'"]}]}'

    def response(self, number: int, n: int) -> bytes:
        start = int(self.random.random() * 4088)
        return b"Reading %d of case %d: " % (n, number) + b". ".join(self.sentences[start : start + 8])


class _Result(msgspec.Struct):
    item: int
    response: int
    status: Literal["ok"]
    scores: dict[str, float]
    logits: dict[str, float]
    reward: float
    cached: bool


class _Reply(msgspec.Struct):
    results: list[_Result]


def medreward_check(responses: int) -> Callable[[bytes], bool]:
    """Every response scored, in order, on six dimensions, and none of them out of a cache."""
    decoder = msgspec.json.Decoder(_Reply)
    expected = list(range(responses))

    def check(body: bytes) -> bool:
        try:
            results = decoder.decode(body).results
        except msgspec.DecodeError:
            return False
        return [one.response for one in results] == expected and all(
            len(one.scores) == len(one.logits) == 6 and not one.cached for one in results
        )

    return check


def constant_check(body: bytes) -> bool:
    return body == b'{"score":0.5}'
