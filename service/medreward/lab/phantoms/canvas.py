"""Paints soft shapes on a picture of floats.

Only operations that IEEE 754 fixes to the last bit touch the pixels (+ - * / and the square root), so that a picture is
the same on every machine; cosines are rounded before use.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = float | tuple[float, float, float]
Point: TypeAlias = tuple[float, float]
Mask: TypeAlias = NDArray[np.float32]
Window: TypeAlias = tuple[slice, slice]


def turned(degrees: float) -> Point:
    """Returns the cosine and sine of an angle, rounded so that every machine has the same."""
    angle = math.radians(degrees)
    return round(math.cos(angle), 6), round(math.sin(angle), 6)


@dataclass(frozen=True, slots=True)
class View:
    """How the body lies in the picture: body coordinates run from -1 to 1, x to the right and y down."""

    size: int
    zoom: float = 1.0
    degrees: float = 0.0
    shift: Point = (0.0, 0.0)

    def on_image(self, x: float, y: float) -> Point:
        """Returns where a point of the body lies, as fractions of the picture."""
        cosine, sine = turned(self.degrees)
        across = self.zoom * (cosine * x - sine * y) + self.shift[0]
        down = self.zoom * (sine * x + cosine * y) + self.shift[1]
        return (1 + across) / 2, (1 + down) / 2

    def on_body(self, x: float, y: float) -> Point:
        """Returns which point of the body lies there, the inverse of `on_image`."""
        cosine, sine = turned(self.degrees)
        across, down = (2 * x - 1 - self.shift[0]) / self.zoom, (2 * y - 1 - self.shift[1]) / self.zoom
        return cosine * across + sine * down, cosine * down - sine * across


class Canvas:
    """A picture under way. Shapes are a window of the picture and, within it, a mask from 0 to 1."""

    def __init__(self, view: View, background: Colour = 0.0) -> None:
        self.view = view
        size = view.size
        self.pixels = np.empty((size, size, 3), np.float32)
        self.pixels[:] = background
        step = np.float32(2 / size)
        line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * step - 1
        across = ((line - np.float32(view.shift[0])) / np.float32(view.zoom))[None, :]
        down = ((line - np.float32(view.shift[1])) / np.float32(view.zoom))[:, None]
        cosine, sine = (np.float32(value) for value in turned(view.degrees))
        self.x: Mask = cosine * across + sine * down
        self.y: Mask = cosine * down - sine * across
        self.edge = 2.5 / size / view.zoom

    def window(self, x: float, y: float, reach: float) -> Window:
        """Returns the part of the picture that a shape of this reach can touch."""
        centre_x, centre_y = self.view.on_image(x, y)
        size, half = self.view.size, reach * self.view.zoom / 2 + 2 / self.view.size
        left, right = max(0, math.floor((centre_x - half) * size)), max(0, math.ceil((centre_x + half) * size))
        top, bottom = max(0, math.floor((centre_y - half) * size)), max(0, math.ceil((centre_y + half) * size))
        return slice(top, bottom), slice(left, right)

    def ellipse(
        self, centre: Point, rx: float, ry: float, degrees: float = 0.0, soft: float = 0.0
    ) -> tuple[Window, Mask]:
        """Returns an ellipse: 1 inside, 0 outside, with a slope of `soft` body units between."""
        soft = max(soft, self.edge)
        at = self.window(*centre, max(rx, ry) + soft)
        cosine, sine = (np.float32(value) for value in turned(degrees))
        x, y = self.x[at] - np.float32(centre[0]), self.y[at] - np.float32(centre[1])
        along = (cosine * x + sine * y) / np.float32(rx)
        beside = (cosine * y - sine * x) / np.float32(ry)
        radius = np.sqrt(along * along + beside * beside)
        return at, _slope((1 - radius) * np.float32(min(rx, ry) / soft))

    def capsule(
        self, start: Point, end: Point, radius: float, end_radius: float | None = None, soft: float = 0.0
    ) -> tuple[Window, Mask]:
        """Returns a thick line with round ends, which may become thinner or thicker towards its end."""
        soft = max(soft, self.edge)
        end_radius = radius if end_radius is None else end_radius
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = max(math.sqrt(dx * dx + dy * dy), 1e-6)
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        at = self.window(*middle, length / 2 + max(radius, end_radius) + soft)
        x, y = self.x[at] - np.float32(start[0]), self.y[at] - np.float32(start[1])
        along = np.clip((x * np.float32(dx) + y * np.float32(dy)) / np.float32(length * length), 0, 1)
        off_x, off_y = x - along * np.float32(dx), y - along * np.float32(dy)
        thick = np.float32(radius) + along * np.float32(end_radius - radius)
        return at, _slope((thick - np.sqrt(off_x * off_x + off_y * off_y)) / np.float32(soft))

    def path(self, points: Sequence[Point], radius: float, soft: float = 0.0) -> list[tuple[Window, Mask]]:
        return [self.capsule(a, b, radius, soft=soft) for a, b in pairwise(points)]

    def blend(self, shape: tuple[Window, Mask], colour: Colour, opacity: float = 1.0) -> None:
        """Paints the shape over what is there."""
        at, mask = shape
        there = self.pixels[at]
        there += (mask * np.float32(opacity))[..., None] * (np.asarray(colour, np.float32) - there)

    def add(self, shape: tuple[Window, Mask], colour: Colour) -> None:
        """Adds light within the shape, as where an X-ray meets one thing behind another."""
        at, mask = shape
        self.pixels[at] += mask[..., None] * np.asarray(colour, np.float32)

    def scale(self, shape: tuple[Window, Mask], factor: float) -> None:
        """Multiplies the light within the shape."""
        at, mask = shape
        self.pixels[at] *= 1 + mask[..., None] * np.float32(factor - 1)

    def oval(self, centre: Point, rx: float, ry: float, colour: Colour, degrees: float = 0, **how: Any) -> None:
        """Paints an ellipse."""
        opacity = how.pop("opacity", 1.0)
        self.blend(self.ellipse(centre, rx, ry, degrees, **how), colour, opacity)

    def line(self, points: Sequence[Point], radius: float, colour: Colour, opacity: float = 1.0) -> None:
        for shape in self.path(points, radius):
            self.blend(shape, colour, opacity)

    def quantised(self) -> NDArray[np.uint8]:
        """Returns the picture in 8 bits."""
        quantised: NDArray[np.uint8] = np.rint(np.clip(self.pixels, 0, 1) * np.float32(255)).astype(np.uint8)
        return quantised


def _slope(depth: NDArray[Any]) -> Mask:
    """Returns a mask that rises from 0 to 1 over one unit of depth, centred on the outline."""
    return np.clip(depth + np.float32(0.5), 0, 1).astype(np.float32)
