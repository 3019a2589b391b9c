"""What a fleet is asked: bursts of a trainer, screening by day and night, or a trace that was recorded."""

import heapq
import json
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from medreward.errors import ConfigurationError
from medreward.types import Lane

DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One group that a client asks about at a moment, with its size in tokens."""

    at: float
    image: str
    responses: int
    image_tokens: int
    question_tokens: int
    answer_tokens: int
    lane: Lane = Lane.BULK


@dataclass(frozen=True, slots=True)
class Size:
    """The tokens of an image, a question and an answer."""

    image: int = 1024
    question: int = 64
    answer: int = 256

    def group(self, responses: int) -> int:
        """Returns the tokens of a group whose image and question run once."""
        return self.image + self.question + responses * self.answer


def training(
    groups_per_second: float, burst: int, responses: int, size: Size, images: int, seconds: float, seed: int = 0
) -> Iterator[Ask]:
    """Yields the steps of a trainer: `burst` groups within a tenth of a step, then nothing until the next one.

    It goes through its images again and again, in an order that each round shuffles anew.
    """
    chance = random.Random(seed)  # noqa: S311  # it draws moments, and guards nothing
    step = burst / groups_per_second
    order: list[int] = []
    for number in range(math.ceil(seconds / step)):
        for at in sorted(chance.uniform(0, step / 10) for _ in range(burst)):
            if not order:
                order = chance.sample(range(images), images)
            if (moment := number * step + at) < seconds:
                yield Ask(moment, f"train {order.pop()}", responses, size.image, size.question, size.answer)


def screening(per_day: float, size: Size, seconds: float, start: float = 0.0, seed: int = 1) -> Iterator[Ask]:
    """Yields single answers to new images in the interactive lane: most at noon, a ninth of that at midnight.

    `start` is the time of day at which it begins, in seconds.
    """
    chance = random.Random(seed)  # noqa: S311  # it draws moments, and guards nothing
    at, most = 0.0, 1.8 * per_day / DAY_S
    number = 0
    while per_day and (at := at + chance.expovariate(most)) < seconds:
        share = (1 - 0.8 * math.cos(2 * math.pi * (start + at) / DAY_S)) / 1.8
        if chance.random() < share:
            number += 1
            yield Ask(at, f"screen {number}", 1, size.image, size.question, size.answer, Lane.INTERACTIVE)


def together(*streams: Iterable[Ask]) -> Iterator[Ask]:
    """Yields all of them in the order of time."""
    return heapq.merge(*streams, key=lambda ask: ask.at)


def recorded(file: Path, size: Size) -> list[Ask]:
    """Returns a trace: JSON lines with `at` in seconds, `image`, and perhaps `responses`, `lane` and `image_tokens`,
    `question_tokens`, `answer_tokens`. Raises ConfigurationError where a line is none.
    """
    asks = []
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the trace {file} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            asks.append(
                Ask(
                    float(row["at"]),
                    str(row["image"]),
                    int(row.get("responses", 1)),
                    int(row.get("image_tokens", size.image)),
                    int(row.get("question_tokens", size.question)),
                    int(row.get("answer_tokens", size.answer)),
                    Lane(row.get("lane", Lane.BULK)),
                )
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(f"{file}, line {number} is no part of a trace: {error!r}") from None
    if not asks:
        raise ConfigurationError(f"the trace {file} is empty")
    first = min(ask.at for ask in asks)
    return sorted((replace(ask, at=ask.at - first) for ask in asks), key=lambda ask: ask.at)
