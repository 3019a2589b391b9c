"""Pictures of the world outside to learn from what is strange; what is measured are others (`strangers.py`)."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from medreward.lab.training.images import Pixels

SIDE: Final = 256
OF_EACH: Final = 50


def outsiders(side: int, count: int = OF_EACH) -> Pixels:
    """Draws so many of each kind at the model's size; every other one is grey, as most medical images are."""
    found = []
    for number, draw in enumerate(KINDS):
        for seed in range(count):
            picture = draw(np.random.default_rng([seed, number, 23])).resize((side, side), Image.Resampling.BILINEAR)
            found.append(np.asarray(picture.convert("L").convert("RGB") if seed % 2 else picture))
    return np.stack(found)


def street(dice: Generator) -> Image.Image:
    """Blocks with windows under a sky, and a road."""
    picture = Image.new("RGB", (SIDE, SIDE), _colour(dice, 130, 250))
    pen, x = ImageDraw.Draw(picture), 0
    while x < SIDE:
        width, top = int(dice.integers(25, 70)), int(dice.integers(20, 140))
        pen.rectangle((x, top, x + width, 210), fill=_colour(dice, 40, 200))
        lit = _colour(dice, 60, 255)
        for y in range(top + 8, 200, 18):
            for left in range(x + 5, x + width - 8, 14):
                pen.rectangle((left, y, left + 7, y + 9), fill=lit)
        x += width + int(dice.integers(0, 8))
    pen.rectangle((0, 210, SIDE, SIDE), fill=_colour(dice, 40, 110))
    return _taken(picture, dice)


def portrait(dice: Generator) -> Image.Image:
    """A face before a wall."""
    picture = Image.new("RGB", (SIDE, SIDE), _colour(dice, 40, 230))
    pen = ImageDraw.Draw(picture)
    x, y = (int(value) for value in dice.integers(95, 160, 2))
    skin = (int(dice.integers(110, 250)), int(dice.integers(80, 200)), int(dice.integers(60, 170)))
    pen.ellipse((x - 62, y - 85, x + 62, y + 60), fill=_colour(dice, 10, 120))
    pen.rectangle((x - 90, y + 80, x + 90, SIDE), fill=_colour(dice, 20, 230))
    pen.ellipse((x - 50, y - 65, x + 50, y + 75), fill=skin)
    for eye in (-20, 20):
        pen.ellipse((x + eye - 9, y - 15, x + eye + 9, y - 5), fill=(245, 245, 245))
        pen.ellipse((x + eye - 4, y - 14, x + eye + 4, y - 6), fill=(30, 30, 30))
    pen.arc((x - 22, y + 10, x + 22, y + 45), 20, 160, fill=(150, 40, 50), width=4)
    return _taken(picture, dice)


def chart(dice: Generator) -> Image.Image:
    """Bars or a curve between axes."""
    picture = Image.new("RGB", (SIDE, SIDE), _colour(dice, 225, 256))
    pen, colour = ImageDraw.Draw(picture), _colour(dice, 20, 200)
    pen.line((25, 15, 25, 230, 245, 230), fill=(20, 20, 20), width=2)
    heights = dice.integers(10, 200, 10).tolist()
    if dice.random() < 0.5:
        for place, height in enumerate(heights):
            pen.rectangle((32 + 21 * place, 230 - height, 46 + 21 * place, 229), fill=colour)
    else:
        pen.line([(32 + 21 * place, 230 - height) for place, height in enumerate(heights)], fill=colour, width=3)
    for y in range(30, 230, 40):
        pen.line((25, y, 245, y), fill=(190, 190, 190))
    return picture


def scribble(dice: Generator) -> Image.Image:
    """Strokes of a pen."""
    picture = Image.new("RGB", (SIDE, SIDE), _colour(dice, 215, 256))
    pen = ImageDraw.Draw(picture)
    for _ in range(dice.integers(6, 30)):
        points = np.cumsum(dice.normal(0, 14, (12, 2)), 0) + dice.uniform(30, 226, 2)
        pen.line([(float(x), float(y)) for x, y in points], fill=_colour(dice, 0, 160), width=int(dice.integers(1, 6)))
    return picture


def foliage(dice: Generator) -> Image.Image:
    """Leaves over leaves."""
    picture = Image.new("RGB", (SIDE, SIDE), (30, 60, 25))
    pen = ImageDraw.Draw(picture)
    for _ in range(160):
        x, y = (int(value) for value in dice.integers(0, SIDE, 2))
        wide, high = (int(value) for value in dice.integers(6, 34, 2))
        green = int(dice.integers(60, 220))
        pen.ellipse((x - wide, y - high, x + wide, y + high), fill=(green // 2, green, green // 4))
    return _taken(picture, dice)


def clouds(dice: Generator) -> Image.Image:
    """Coloured noise that is smooth at every scale."""
    layers = np.zeros((SIDE, SIDE, 3))
    for size in (4, 8, 16, 32, 64):
        coarse = dice.integers(0, 256, (size, size, 3), np.uint8)
        fine = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        layers += np.asarray(fine, np.float64) * 2.0 / size
    return Image.fromarray((255 * (layers - layers.min()) / np.ptp(layers)).astype(np.uint8))


def toys(dice: Generator) -> Image.Image:
    """Blocks of plain colours on a floor."""
    picture = Image.new("RGB", (SIDE, SIDE), _colour(dice, 120, 240))
    pen = ImageDraw.Draw(picture)
    for _ in range(dice.integers(5, 14)):
        x, y, size = (int(value) for value in dice.integers((10, 60, 18), (220, 220, 60)))
        colour = _colour(dice, 20, 255)
        pen.rectangle((x, y, x + size, y + size), fill=colour)
        dark = (colour[0] // 2, colour[1] // 2, colour[2] // 2)
        off = size // 3
        pen.polygon([(x, y), (x + off, y - off), (x + size + off, y - off), (x + size, y)], fill=dark)
    return _taken(picture, dice)


def _taken(picture: Image.Image, dice: Generator) -> Image.Image:
    """Returns it blurred a little and grainy, as a photograph is."""
    soft = picture.filter(ImageFilter.GaussianBlur(float(dice.uniform(0, 2))))
    grainy = np.asarray(soft, np.float64) + dice.normal(0, dice.uniform(0, 10), (SIDE, SIDE, 1))
    return Image.fromarray(grainy.clip(0, 255).astype(np.uint8))


def _colour(dice: Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = dice.integers(low, high, 3).tolist()
    return red, green, blue


KINDS: Final[tuple[Callable[[Generator], Image.Image], ...]] = (
    street, portrait, chart, scribble, foliage, clouds, toys,
)  # fmt: skip
