"""Ultrasound: breast, abdomen, pelvis and heart, and the heart as MR shows it."""

from typing import Final

import numpy as np

from medreward.lab.phantoms.canvas import Canvas, Point
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.kinds import Kind
from medreward.lab.phantoms.scenes.base import Changes, Look, Plan, Scene, Spot, changed, exposed, lumpy, smooth


def echo_finish(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    """Adds speckle, and darkness outside the fan."""
    size = canvas.view.size
    grain = dice.grain(size, size)
    speckle = (grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1) + np.roll(grain, 2, 1)) * np.float32(0.45)
    gain = dice.between(0.85, 1.15)
    canvas.pixels *= ((1 + speckle) * np.float32(gain))[..., None]
    canvas.pixels += (dice.clouds(size, size, 6) * np.float32(0.04))[..., None]
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1
    x, y = line[None, :], line[:, None] + np.float32(1.35)
    fan = (np.abs(x) < y * np.float32(0.72)) & (x * x + y * y < np.float32(5.3)) & (x * x + y * y > np.float32(0.14))
    canvas.pixels *= fan[..., None]


def mr_finish(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    exposed(canvas, dice, 0.07)


def shadowed(look: Look, factor: float) -> Look:
    """Returns a look that also makes what lies behind it darker, as a stone does, or brighter, as fluid does."""

    def with_shadow(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
        behind = canvas.capsule(
            (at[0], at[1] + radius * 1.2), (at[0] * 1.25, at[1] + radius + 0.5), radius * 0.8, soft=0.04
        )
        canvas.scale(behind, factor)
        look(canvas, dice, at, radius)

    return with_shadow


def tissue(canvas: Canvas, dice: Dice, value: float) -> None:
    size = canvas.view.size
    canvas.pixels[:] = value
    canvas.pixels += (dice.clouds(size, size, 14) * np.float32(0.1))[..., None]


def paint_breast_layers(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    tissue(canvas, dice, 0.42)
    canvas.line([(-1.3, -0.93), (1.3, -0.93)], 0.1, 0.75)
    canvas.line([(-1.3, -0.62), (1.3, -0.58)], 0.14, 0.3)
    for _ in range(8):
        start = dice.between(-1, 0.8), dice.between(-0.4, 0.3)
        canvas.line([start, (start[0] + 0.35, start[1] + dice.between(-0.08, 0.08))], 0.012, 0.62, 0.6)
    canvas.line([(-1.3, 0.72), (1.3, 0.7)], 0.12, 0.25)


def grid(
    names: tuple[str, str, str] = ("left", "middle", "right"), y: tuple[float, float] = (-0.25, 0.3)
) -> tuple[Spot, ...]:
    return tuple(
        Spot(f"{column} of the picture, {row}", None, x, height, 0.05, 0.05)
        for row, height in (("near the probe", y[0]), ("deep", y[1]))
        for column, x in zip(names, (-0.4, 0.0, 0.4), strict=True)
    )


BREAST_ECHO: Final = (
    Plan(Kind("mass", "mass", "a solid mass", "solid masses"), grid(), 0.06, shadowed(lumpy(0.09, 0.15), 0.8)),
    Plan(Kind("cyst", "cyst", "a cyst", "cysts"), grid(), 0.06, shadowed(smooth(0.01), 1.6)),
    Plan(
        Kind("calcification", "calcification", "a calcification", "calcifications"),
        grid(),
        0.03,
        shadowed(smooth(1.2), 0.3),
    ),
)


def paint_upper_abdomen(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    tissue(canvas, dice, 0.45)
    canvas.line([(-1.3, -0.9), (1.3, -0.9)], 0.1, 0.6)
    wide = dice.between(0.26, 0.3) * (1.45 if "distended gallbladder" in changes else 1)
    canvas.scale(canvas.capsule((0.2, 0.2), (0.3, 0.9), wide * 0.6, soft=0.08), 1.4)
    canvas.oval((0.16, 0.0), wide + 0.03, wide * 0.55 + 0.03, 0.7, 15)
    canvas.oval((0.16, 0.0), wide, wide * 0.55, 0.02, 15)
    for _ in range(5):
        at = dice.between(-0.6, -0.1), dice.between(-0.4, 0.5)
        canvas.oval(at, 0.05, 0.025, 0.12, dice.between(0, 180))
    canvas.line([(-1.1, 0.55), (-0.3, 0.8), (0.6, 0.86)], 0.03, 0.95)
    if "free fluid" in changes:
        canvas.line([(-0.62, 0.36), (-0.2, 0.62), (0.2, 0.66)], 0.09, 0.0)


LIVER: Final = (
    Spot("liver, near the probe", None, -0.3, -0.4, 0.05, 0.04),
    Spot("liver, deep", None, -0.42, 0.15, 0.04, 0.04),
)
UPPER_ABDOMEN: Final = (
    Plan(
        Kind("gallstone", "calcification", "a gallstone", "gallstones"),
        (Spot("gallbladder", None, 0.15, 0.03, 0.03, 0.01),),
        0.035,
        shadowed(smooth(1.2), 0.25),
    ),
    Plan(Kind("cyst", "cyst", "a cyst", "cysts"), LIVER, 0.055, shadowed(smooth(0.01), 1.5)),
    Plan(Kind("mass", "mass", "a mass", "masses"), LIVER, 0.06, lumpy(0.85, 0.3)),
    Plan(
        Kind("distended gallbladder", "enlargement", "enlargement of the gallbladder"),
        (Spot("gallbladder", None, 0.16, 0, 0, 0),),
        0.4,
        sized=False,
    ),
    Plan(
        Kind("free fluid", "fluid", "free fluid"), (Spot("below the liver", None, -0.2, 0.62, 0, 0),), 0.12, sized=False
    ),
)


def paint_four_chambers(canvas: Canvas, dice: Dice, changes: Changes, wall: float, blood: float) -> None:
    canvas.oval((0, 0.0), 0.66, 0.78, wall * 0.7, soft=0.05)
    if "pericardial effusion" in changes:
        canvas.oval((0, 0.0), 0.66, 0.78, blood)
    canvas.oval((0, 0.0), 0.57, 0.7, wall)
    for place, x, y, rx, ry in CHAMBERS:
        grown = 1.38 if changed(changes, "enlarged chamber", place=place) else 1.0
        wobble = dice.between(0.94, 1.04)
        sign = 1 if x > 0 else -1
        canvas.oval((x + sign * (grown - 1) * 0.1, y), rx * grown * wobble, ry * grown, blood, 0, soft=0.03)
    canvas.line([(0, -0.5), (0, 0.52)], 0.035, wall * 1.1)
    if "septal defect" in changes:
        canvas.oval(changes["septal defect"].points[0], 0.1, 0.07, blood)
    for sign in (-1, 1):
        opening = dice.between(0.02, 0.06)
        canvas.line([(sign * 0.04, 0.12), (sign * 0.18, 0.12 - opening)], 0.016, wall * 1.3)
        canvas.line([(sign * 0.46, 0.1), (sign * 0.3, 0.12 - opening)], 0.016, wall * 1.3)


CHAMBERS: Final = (
    ("right ventricle", -0.24, -0.22, 0.15, 0.27),
    ("left ventricle", 0.24, -0.22, 0.17, 0.3),
    ("right atrium", -0.24, 0.35, 0.16, 0.17),
    ("left atrium", 0.24, 0.35, 0.16, 0.17),
)
CHAMBER_SPOTS: Final = tuple(Spot(place, None, x, y, 0.02, 0.03) for place, x, y, _, _ in CHAMBERS)


def paint_heart_echo(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    tissue(canvas, dice, 0.22)
    paint_four_chambers(canvas, dice, changes, 0.6, 0.04)


def paint_heart_mr(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    canvas.oval((0, 0), 1.2, 0.95, 0.5)
    canvas.oval((-0.75, -0.1), 0.4, 0.7, 0.06, soft=0.05)
    canvas.oval((0.8, -0.1), 0.36, 0.65, 0.06, soft=0.05)
    paint_four_chambers(canvas, dice, changes, 0.25, 0.9)


def lead(value: float) -> Look:
    def look(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
        canvas.line([(-0.3, 0.75), (-0.28, 0.3), (-0.22, 0.05), (at[0], at[1])], 0.02, value)
        canvas.oval(at, 0.035, 0.035, value)

    return look


def heart_plans(thrombus: float, metal: float) -> tuple[Plan, ...]:
    return (
        Plan(Kind("thrombus", "mass", "a mass inside a chamber"), CHAMBER_SPOTS, 0.045, lumpy(thrombus)),
        Plan(Kind("enlarged chamber", "enlargement", "an enlarged heart chamber"), CHAMBER_SPOTS, 0.2, sized=False),
        Plan(
            Kind("pericardial effusion", "fluid", "a pericardial effusion"),
            (Spot("around the heart", None, 0.6, 0.05, 0, 0),),
            0.1,
            sized=False,
        ),
        Plan(
            Kind("septal defect", "missing", "a gap in the septum"),
            (
                Spot("upper half of the septum in the picture", None, 0, -0.22, 0, 0.04),
                Spot("lower half of the septum in the picture", None, 0, 0.34, 0, 0.04),
            ),
            0.08,
            sized=False,
        ),
        Plan(
            Kind("pacemaker lead", "device", "a pacemaker lead"),
            (Spot("right ventricle", None, -0.22, -0.2, 0.02, 0.05),),
            0.06,
            lead(metal),
            sized=False,
        ),
    )


ECHOES: Final = (
    Scene("breast", "ultrasound", None, BREAST_ECHO, paint_breast_layers, echo_finish, tilt=0, drift=0.03),
    Scene("abdomen", "ultrasound", None, UPPER_ABDOMEN, paint_upper_abdomen, echo_finish, tilt=5, drift=0.03),
    Scene("heart", "echocardiogram", "four-chamber", heart_plans(0.75, 1.3), paint_heart_echo, echo_finish, tilt=12),
    Scene("heart", "MR", "four-chamber", heart_plans(0.45, 0.0), paint_heart_mr, mr_finish, tilt=12),
)
