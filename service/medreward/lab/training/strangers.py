"""Pictures of what a medical model was never shown: plain, regular, written on, or of the world outside."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from medreward.lab.training.images import Pixels, png
from medreward.lab.training.served import Picture

SIDE: Final = 256
OF_EACH: Final = 24
WORDS: Final = ("the", "of", "and", "to", "in", "was", "for", "on", "with", "they", "at", "had", "but", "what")


def strangers(count: int = OF_EACH) -> Iterator[tuple[str, Picture]]:
    for kind, draw in KINDS.items():
        for number in range(count):
            yield kind, Picture(f"stranger/{kind}/{number}", partial(_drawn, draw, number))


def _drawn(draw: Callable[[Generator], Pixels], number: int) -> bytes:
    """Draws one; every other one is grey, as most medical images are."""
    pixels = draw(np.random.default_rng([number, 17]))
    return png(pixels.mean(2, keepdims=True).astype(np.uint8).repeat(3, 2) if number % 2 else pixels)


def blank(dice: Generator) -> Pixels:
    """Half of them black."""
    return np.full((SIDE, SIDE, 3), dice.integers(0, 256, 3) * dice.integers(0, 2), np.uint8)


def noise(dice: Generator) -> Pixels:
    cell = 2 ** int(dice.integers(0, 4))
    fine = dice.integers(0, 256, (SIDE // cell, SIDE // cell, 3), np.uint8)
    return fine.repeat(cell, 0).repeat(cell, 1)


def gradient(dice: Generator) -> Pixels:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    angle = dice.uniform(0, 2 * np.pi)
    part = (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)) / 1.42 + 0.5
    start, end = dice.integers(0, 256, (2, 3))
    found: Pixels = (start + part[:, :, None] * (end - start)).astype(np.uint8)
    return found


def checkerboard(dice: Generator) -> Pixels:
    cell = int(dice.integers(6, 48))
    y, x = np.mgrid[0:SIDE, 0:SIDE] // cell
    colours = dice.integers(0, 256, (2, 3)).astype(np.uint8)
    found: Pixels = colours[(x + y) % 2]
    return found


def page(dice: Generator) -> Pixels:
    """Lines of words, dark on light."""
    picture = Image.new("RGB", (SIDE, SIDE), _colour(dice, 225, 256))
    pen, size = ImageDraw.Draw(picture), int(dice.integers(9, 18))
    font = ImageFont.load_default(size)
    for y in range(8, SIDE - size, int(size * 1.4)):
        pen.text((10, y), " ".join(dice.choice(WORDS, 12)), fill=_colour(dice, 0, 60), font=font)
    return np.asarray(picture)


def landscape(dice: Generator) -> Pixels:
    """Sky, sun, hills and houses."""
    picture = Image.new("RGB", (SIDE, SIDE))
    pen, horizon = ImageDraw.Draw(picture), int(dice.integers(110, 170))
    for y in range(SIDE):
        pen.line((0, y, SIDE, y), fill=(90 + y // 3, 140 + y // 3, 235))
    sun = int(dice.integers(20, 200))
    pen.ellipse((sun, 20, sun + 34, 54), fill=(250, 220, 90))
    for depth in range(3):
        places = range(0, SIDE + 32, 32)
        top = [(x, horizon + 24 * depth - int(dice.integers(0, 45))) for x in places]
        pen.polygon([(0, SIDE), *top, (SIDE, SIDE)], fill=(60 + 10 * depth, 120 + 25 * depth, 50))
    for x in dice.integers(10, 200, 3).tolist():
        base = int(dice.integers(200, 245))
        pen.rectangle((x, base - 34, x + 40, base), fill=_colour(dice, 120, 220))
        pen.polygon([(x - 5, base - 34), (x + 45, base - 34), (x + 20, base - 58)], fill=(150, 60, 45))
    return _photographed(picture, dice)


def still_life(dice: Generator) -> Pixels:
    """Round things of many colours on a table."""
    picture = Image.new("RGB", (SIDE, SIDE), _colour(dice, 150, 240))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, int(dice.integers(130, 190)), SIDE, SIDE), fill=(130, 90, 55))
    for _ in range(7):
        x, y, radius = (int(value) for value in dice.integers((20, 90, 15), (220, 220, 42)))
        colour = np.array(_colour(dice, 30, 230))
        for ring in range(radius, 2, -2):
            lit = np.minimum(colour + 2 * (radius - ring), 255)
            pen.ellipse((x - ring, y - ring, x + ring, y + ring), fill=(int(lit[0]), int(lit[1]), int(lit[2])))
    return _photographed(picture, dice)


def _photographed(picture: Image.Image, dice: Generator) -> Pixels:
    grainy = np.asarray(picture, np.float64) + dice.normal(0, 6, (SIDE, SIDE, 1))
    found: Pixels = grainy.clip(0, 255).astype(np.uint8)
    return found


def _colour(dice: Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = dice.integers(low, high, 3).tolist()
    return red, green, blue


KINDS: Final[Mapping[str, Callable[[Generator], Pixels]]] = {
    "blank": blank,
    "noise": noise,
    "gradient": gradient,
    "checkerboard": checkerboard,
    "page of text": page,
    "landscape": landscape,
    "still life": still_life,
}
