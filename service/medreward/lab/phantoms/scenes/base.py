"""What a scene is: an anatomy that can be painted, what may be found in it, and where."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from medreward.lab.phantoms.canvas import Canvas, Colour, Point, turned
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.kinds import Kind

# A look stamps one lesion on the canvas: at this body point, of this radius.
Look: TypeAlias = Callable[[Canvas, Dice, Point, float], None]


@dataclass(frozen=True, slots=True)
class Spot:
    """A named place: the body point in its middle and how far from it a finding may lie."""

    place: str
    side: str | None
    x: float
    y: float
    dx: float = 0.03
    dy: float = 0.03


@dataclass(frozen=True, slots=True)
class Plan:
    """One kind of finding in a scene. Without a look, the painter changes its anatomy instead."""

    kind: Kind
    spots: tuple[Spot, ...]
    radius: float
    look: Look | None = None
    sized: bool = True

    def places(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(spot.place for spot in self.spots))


@dataclass(frozen=True, slots=True)
class Lesion:
    """One kind of finding as it is painted: at these points of the body, of this radius."""

    plan: Plan
    spot: Spot
    points: tuple[Point, ...]
    radius: float
    size: str | None


# The lesions that the painter itself must show, by kind.
Changes: TypeAlias = Mapping[str, Lesion]
Painter: TypeAlias = Callable[[Canvas, Dice, Changes], None]


@dataclass(frozen=True, slots=True)
class Scene:
    """A region as one modality shows it. `paint` draws the anatomy, `finish` what the modality does to the picture."""

    region: str
    modality: str
    plane: str | None
    plans: tuple[Plan, ...]
    paint: Painter
    finish: Painter
    lateral: bool = False  # the part itself is a right or a left one
    tilt: float = 8.0
    zoom: tuple[float, float] = (0.88, 1.06)
    drift: float = 0.06


def both_sides(place: str, x: float, y: float, dx: float = 0.04, dy: float = 0.04) -> tuple[Spot, Spot]:
    """Returns the same place on both sides. The patient's right is on the picture's left, as physicians look at it."""
    return Spot(place, "right", -x, y, dx, dy), Spot(place, "left", x, y, dx, dy)


def changed(changes: Changes, kind: str, place: str | None = None, side: str | None = None) -> bool:
    """Returns whether the painter must show this kind of finding, there."""
    lesion = changes.get(kind)
    return lesion is not None and place in (None, lesion.spot.place) and side in (None, lesion.spot.side)


def smooth(colour: Colour, rim: Colour | None = None, soft: float = 0.0) -> Look:
    """Returns the look of a clean oval, with a thin wall if `rim` is given."""

    def look(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
        ry, angle = radius * dice.between(0.82, 0.98), dice.between(0, 180)
        if rim is not None:
            canvas.oval(at, radius, ry, rim, angle)
            canvas.oval(at, radius * 0.84, ry * 0.84, colour, angle)
        else:
            canvas.oval(at, radius, ry, colour, angle, soft=soft)

    return look


def lumpy(colour: Colour, core: Colour | None = None, soft: float = 0.015, opacity: float = 1.0) -> Look:
    """Returns the look of an irregular growth, with a middle of its own if `core` is given."""

    def look(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
        start = dice.between(0, 72)
        lobes = [(turned(start + 72 * lobe), dice.between(0.42, 0.6)) for lobe in range(5)]
        for (cosine, sine), part in lobes:
            centre = at[0] + 0.45 * radius * cosine, at[1] + 0.45 * radius * sine
            canvas.oval(centre, radius * part, radius * part, colour, soft=soft, opacity=opacity)
        canvas.oval(at, radius * 0.62, radius * 0.62, colour, soft=soft, opacity=opacity)
        if core is not None:
            canvas.oval(at, radius * 0.5, radius * 0.45, core, start, soft=soft)

    return look


def spiky(colour: Colour) -> Look:
    """Returns the look of a growth with strands around it."""

    def look(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
        for spike in range(9):
            cosine, sine = turned(40 * spike + dice.between(-12, 12))
            reach = radius * dice.between(1.1, 1.6)
            end = at[0] + reach * cosine, at[1] + reach * sine
            canvas.blend(canvas.capsule(at, end, radius * 0.16, radius * 0.02), colour, 0.7)
        canvas.oval(at, radius * 0.8, radius * 0.75, colour, dice.between(0, 180), soft=0.02)

    return look


def grains(colour: Colour, count: int = 7) -> Look:
    """Returns the look of a cluster of specks."""

    def look(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
        for _ in range(count):
            cosine, sine = turned(dice.between(0, 360))
            away, speck = radius * dice.between(0, 0.85), radius * dice.between(0.14, 0.24)
            canvas.oval((at[0] + away * cosine, at[1] + away * sine), speck, speck, colour)
        canvas.oval(at, radius * 0.2, radius * 0.2, colour)

    return look


def crack(colour: Colour, degrees: float, opacity: float = 1.0) -> Look:
    """Returns the look of a jagged line across a bone that runs in this direction."""

    def look(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
        cosine, sine = turned(degrees + 90 + dice.between(-25, 25))
        points = []
        for step in range(-2, 3):
            jag = radius * dice.between(-0.22, 0.22)
            along = 0.6 * radius * step
            points.append((at[0] + along * cosine - jag * sine, at[1] + along * sine + jag * cosine))
        canvas.line(points, 0.014, colour, opacity)

    return look


def plate(colour: Colour, degrees: float) -> Look:
    """Returns the look of a metal plate with screws along a bone that runs in this direction."""

    def look(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
        cosine, sine = turned(degrees + dice.between(-3, 3))
        ends = [(at[0] + part * radius * cosine, at[1] + part * radius * sine) for part in (-1, 1)]
        canvas.line(ends, 0.022, colour)
        for part in (-0.8, -0.27, 0.27, 0.8):
            head = at[0] + part * radius * cosine, at[1] + part * radius * sine
            canvas.line(
                [(head[0] + 0.05 * sine, head[1] - 0.05 * cosine), (head[0] - 0.09 * sine, head[1] + 0.09 * cosine)],
                0.011,
                colour,
            )

    return look


def exposed(canvas: Canvas, dice: Dice, noise: float) -> None:
    """Gives the picture an exposure of its own, and the grain that goes with it."""
    contrast, brightness, strength = dice.between(0.86, 1.1), dice.between(-0.04, 0.05), noise * dice.between(0.5, 1.3)
    size = canvas.view.size
    grain = dice.grain(size, size) * strength + dice.clouds(size, size, 5) * 0.025
    canvas.pixels = (canvas.pixels - 0.45) * contrast + (0.45 + brightness) + grain[..., None]
