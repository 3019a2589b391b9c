"""Colour pictures: the eye's fundus, the skin of foot and limbs, the mouth, the gut from inside."""

from typing import Final

import numpy as np

from medreward.lab.phantoms.canvas import Canvas, Colour, Point, turned
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.kinds import Kind
from medreward.lab.phantoms.scenes.base import Changes, Look, Plan, Scene, Spot, changed, grains, lumpy, smooth

SKIN: Final = (
    (0.95, 0.8, 0.7),
    (0.88, 0.69, 0.56),
    (0.76, 0.55, 0.41),
    (0.6, 0.41, 0.29),
    (0.44, 0.29, 0.2),
    (0.31, 0.2, 0.15),
)


def photo_finish(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    size = canvas.view.size
    light = 1 + dice.clouds(size, size, 2) * 0.12 + dice.grain(size, size) * 0.035
    warmth = np.asarray((dice.between(0.95, 1.05), 1.0, dice.between(0.93, 1.07)), np.float32)
    canvas.pixels *= (light * np.float32(dice.between(0.88, 1.08)))[..., None] * warmth


def round_finish(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    """Darkens all but a disc, as a scope does."""
    photo_finish(canvas, dice, changes)
    size = canvas.view.size
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1
    canvas.pixels *= (line[None, :] * line[None, :] + line[:, None] * line[:, None] < np.float32(0.92))[..., None]


def darker(colour: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def ulcer(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
    lumpy((0.55, 0.16, 0.14), soft=0.03)(canvas, dice, at, radius)
    canvas.oval(at, radius * 0.72, radius * 0.64, (0.86, 0.42, 0.36), dice.between(0, 180), soft=0.02)
    canvas.oval(at, radius * 0.4, radius * 0.36, (0.9, 0.82, 0.5), dice.between(0, 180), soft=0.03)


BRUISE: Final = smooth((0.36, 0.12, 0.3), soft=0.09)
MOLE: Final = lumpy((0.1, 0.06, 0.05), soft=0.01)
SKIN_KINDS: Final[tuple[tuple[Kind, float, Look], ...]] = (
    (Kind("ulcer", "erosion", "an ulcer", "ulcers"), 0.055, ulcer),
    (Kind("mole", "mass", "a dark raised mole", "dark raised moles"), 0.035, MOLE),
    (Kind("bruise", "bleeding", "a bruise", "bruises"), 0.06, BRUISE),
)


def skin_plans(spots: tuple[Spot, ...]) -> tuple[Plan, ...]:
    return tuple(Plan(kind, spots, radius, look) for kind, radius, look in SKIN_KINDS)


def paint_sole(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    skin, cloth = dice.pick(SKIN), dice.pick(((0.25, 0.42, 0.5), (0.75, 0.78, 0.8), (0.18, 0.3, 0.24)))
    canvas.pixels[:] = cloth
    canvas.oval((0.0, 0.62), 0.26, 0.28, skin)
    canvas.blend(canvas.capsule((0, 0.6), (0.02, -0.25), 0.25, 0.38), skin)
    for toe, place in enumerate(TOES):
        x, y = -0.33 + 0.165 * toe, -0.66 - 0.06 * (toe in (1, 2)) + 0.05 * (toe == 4)
        wobble = dice.between(-0.02, 0.02)
        if not changed(changes, "missing toe", place=place):
            thick = 0.115 if toe == 0 else 0.08
            canvas.line([(x * 0.95, -0.42), (x, y + wobble)], thick + 0.012, darker(skin, 0.8))
            canvas.line([(x * 0.95, -0.42), (x, y + wobble)], thick, skin)
    for y in (-0.1, 0.12, 0.3):
        canvas.line([(-0.18, y), (0.0, y + 0.03), (0.2, y - 0.02)], 0.008, darker(skin, 0.85), 0.6)


TOES: Final = tuple(f"{nth} toe from the picture's left" for nth in ("first", "second", "third", "fourth", "fifth"))
SOLE: Final = (
    *skin_plans(
        (
            Spot("heel", None, 0, 0.6, 0.05, 0.05),
            Spot("arch", None, 0.0, 0.22, 0.04, 0.05),
            Spot("ball of the foot", None, 0.0, -0.24, 0.1, 0.04),
        )
    ),
    Plan(
        Kind("missing toe", "missing", "a missing toe"),
        tuple(Spot(place, None, -0.33 + 0.165 * toe, -0.68, 0, 0) for toe, place in enumerate(TOES)),
        0.12,
        sized=False,
    ),
)


def paint_skin(canvas: Canvas, dice: Dice) -> tuple[float, float, float]:
    """Paints a cloth and returns the tone of the skin to lay on it."""
    canvas.pixels[:] = dice.pick(((0.25, 0.42, 0.5), (0.75, 0.78, 0.8), (0.18, 0.3, 0.24)))
    return dice.pick(SKIN)


def paint_leg(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    skin, calf = paint_skin(canvas, dice), dice.between(0.4, 0.46)
    canvas.blend(canvas.capsule((0, -1.6), (0, 0.75), calf * 1.1, calf * 0.6), darker(skin, 0.82))
    canvas.blend(canvas.capsule((0.02, 0.82), (0.55, 0.92), 0.2, 0.13), darker(skin, 0.86))
    canvas.blend(canvas.capsule((-0.03, -1.6), (-0.03, 0.75), calf * 0.95, calf * 0.48, soft=0.15), skin)
    canvas.oval((0, -0.86), 0.2, 0.16, darker(skin, 0.88), soft=0.08)
    paint_hairs(canvas, dice, skin)


def paint_arm(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    skin, thick = paint_skin(canvas, dice), dice.between(0.28, 0.33)
    canvas.blend(canvas.capsule((0, -1.6), (0, 0.5), thick * 1.1, thick * 0.75), darker(skin, 0.82))
    canvas.oval((0, 0.66), 0.3, 0.24, darker(skin, 0.9))
    for finger, x in enumerate((-0.22, -0.08, 0.07, 0.21)):
        canvas.line([(x, 0.72), (x * 1.15, 1.0 + 0.06 * (finger in (1, 2)))], 0.065, darker(skin, 0.9))
    canvas.line([(0.24, 0.56), (0.45, 0.76)], 0.07, darker(skin, 0.9))
    canvas.blend(canvas.capsule((-0.02, -1.6), (-0.02, 0.55), thick * 0.92, thick * 0.6, soft=0.12), skin)
    paint_hairs(canvas, dice, skin)


def paint_hairs(canvas: Canvas, dice: Dice, skin: tuple[float, float, float]) -> None:
    for _ in range(30):
        start = dice.between(-0.22, 0.22), dice.between(-0.9, 0.4)
        canvas.line([start, (start[0] + 0.03, start[1] + 0.06)], 0.005, darker(skin, 0.6), 0.5)


LIMB: Final = skin_plans(
    (
        Spot("upper third of the picture", None, 0, -0.6, 0.06, 0.05),
        Spot("middle of the picture", None, 0, -0.05, 0.06, 0.05),
        Spot("lower third of the picture", None, 0, 0.45, 0.03, 0.03),
    )
)


def paint_mouth(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    canvas.pixels[:] = dice.pick(SKIN)
    lip = (dice.between(0.62, 0.78), dice.between(0.28, 0.38), dice.between(0.28, 0.36))
    canvas.oval((0, 0), 0.92, 0.82, lip)
    canvas.oval((0, 0.02), 0.78, 0.66, (0.3, 0.06, 0.06))
    for tooth in range(6):
        x = -0.4 + 0.16 * tooth
        canvas.oval((x, -0.5 + 0.25 * x * x), 0.085, 0.13, (0.95, 0.93, 0.85))
    canvas.oval((0, 0.22), 0.56, 0.46, (0.84, 0.42, 0.42), soft=0.04)
    canvas.line([(0, -0.1), (0, 0.5)], 0.012, (0.68, 0.3, 0.3), 0.7)
    if "swollen tongue" in changes:
        canvas.oval((0, 0.18), 0.76, 0.62, (0.84, 0.42, 0.42), soft=0.04)


TONGUE: Final = (
    Spot("tip of the tongue", None, 0, 0.5, 0.06, 0.02),
    Spot("left edge of the tongue in the picture", None, -0.34, 0.22, 0.02, 0.05),
    Spot("right edge of the tongue in the picture", None, 0.34, 0.22, 0.02, 0.05),
    Spot("back of the tongue", None, 0, -0.06, 0.06, 0.02),
)
MOUTH: Final = (
    Plan(Kind("ulcer", "erosion", "an ulcer", "ulcers"), TONGUE, 0.05, ulcer),
    Plan(
        Kind("mass", "mass", "a pale mass", "pale masses"), TONGUE, 0.06, smooth((0.97, 0.75, 0.72), (0.6, 0.25, 0.26))
    ),
    Plan(
        Kind("blood spot", "bleeding", "a spot of bleeding", "spots of bleeding"),
        TONGUE,
        0.045,
        lumpy((0.36, 0.0, 0.05)),
    ),
    Plan(
        Kind("swollen tongue", "enlargement", "enlargement of the tongue"),
        (Spot("floor of the mouth", None, 0, 0.18, 0, 0),),
        0.6,
        sized=False,
    ),
)


def paint_fundus(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    base = dice.between(0.6, 0.85), dice.between(0.24, 0.36), dice.between(0.08, 0.16)
    canvas.oval((0, 0), 1.2, 1.2, base, soft=0.5)
    canvas.oval((-0.12, 0.03), 0.17, 0.17, darker(base, 0.66), soft=0.14)
    disc = (0.45, 0.0)
    for up in (-1, 1):
        for reach, height in ((-1.0, 0.62), (-0.25, 0.85), (0.5, 0.75)):
            bend = dice.between(0.75, 1.1)
            middle = (disc[0] + reach * 0.35, up * height * 0.62 * bend)
            end = (disc[0] + reach, up * height * bend)
            thick = dice.between(0.014, 0.022)
            canvas.line([disc, middle, end], thick, darker(base, 0.55))
            canvas.line([middle, (middle[0] - 0.2, middle[1] + up * 0.3)], thick * 0.6, darker(base, 0.6))
    canvas.oval(disc, 0.15, 0.17, (0.96, 0.78, 0.5), soft=0.03)
    cup = 0.125 if "enlarged cup" in changes else 0.05
    canvas.oval(disc, cup, cup * 1.1, (1.0, 0.97, 0.85), soft=0.02)


QUADRANTS: Final = tuple(
    Spot(f"{row} {column} of the picture", None, x, y, 0.06, 0.06)
    for row, y in (("upper", -0.38), ("lower", 0.38))
    for column, x in (("left", -0.38), ("right", 0.3))
)
FUNDUS: Final = (
    Plan(Kind("haemorrhage", "bleeding", "a haemorrhage", "haemorrhages"), QUADRANTS, 0.04, lumpy((0.24, 0.02, 0.02))),
    Plan(Kind("exudate", "fluid", "an exudate", "exudates"), QUADRANTS, 0.035, grains((1.0, 0.93, 0.5), 9)),
    Plan(
        Kind("naevus", "mass", "a pigmented growth", "pigmented growths"),
        QUADRANTS,
        0.06,
        smooth((0.2, 0.17, 0.14), soft=0.03),
    ),
    Plan(
        Kind("enlarged cup", "enlargement", "an enlarged optic cup"),
        (Spot("optic disc", None, 0.45, 0, 0, 0),),
        0.15,
        sized=False,
    ),
)


def paint_gut(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    base = (dice.between(0.8, 0.95), dice.between(0.42, 0.55), dice.between(0.34, 0.46))
    canvas.pixels[:] = base
    x, y = dice.between(-0.06, 0.06), dice.between(-0.06, 0.06)
    tight = "stricture" in changes
    for ring, part in enumerate((0.92, 0.74, 0.56, 0.42)):
        shade = 0.94 - 0.13 * ring
        angle, squash = dice.between(0, 180), dice.between(0.85, 1.0)
        canvas.oval((x, y), part, part * squash, darker(base, shade * 0.78), angle, soft=0.02)
        canvas.oval((x, y), part - 0.03, (part - 0.03) * squash, darker(base, shade), angle, soft=0.06)
    if tight:
        canvas.oval((x, y), 0.42, 0.4, darker(base, 1.05), soft=0.1)
        canvas.oval((x, y), 0.06, 0.045, (0.08, 0.02, 0.02), soft=0.03)
    else:
        canvas.oval((x, y), 0.28, 0.26, (0.1, 0.03, 0.03), soft=0.1)
    for _ in range(7):
        cosine, sine = turned(dice.between(0, 360))
        start, end = dice.between(0.5, 0.6), dice.between(0.75, 0.95)
        canvas.line([(start * cosine, start * sine), (end * cosine, end * sine + 0.06)], 0.008, (0.72, 0.2, 0.2), 0.5)


def polyp(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
    canvas.oval((at[0] + radius * 0.15, at[1] + radius * 0.2), radius, radius * 0.95, (0.42, 0.14, 0.12), soft=0.03)
    canvas.oval(at, radius, radius * 0.92, (0.9, 0.36, 0.34), soft=0.015)
    canvas.oval(
        (at[0] - radius * 0.3, at[1] - radius * 0.35), radius * 0.3, radius * 0.22, (1.0, 0.85, 0.82), soft=0.03
    )


def clip(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
    cosine, sine = turned(dice.between(0, 180))
    steel: Colour = (0.75, 0.8, 0.86)
    for fork in (-0.4, 0.4):
        end = at[0] + radius * (cosine - fork * sine), at[1] + radius * (sine + fork * cosine)
        canvas.line([(at[0] - radius * cosine, at[1] - radius * sine), end], 0.02, steel)


GUT_SPOTS: Final = tuple(
    Spot(f"{row} {column} of the picture", None, x, y, 0.03, 0.03)
    for row, y in (("upper", -0.4), ("lower", 0.4))
    for column, x in (("left", -0.42), ("right", 0.42))
)
GUT: Final = (
    Plan(Kind("polyp", "mass", "a polyp", "polyps"), GUT_SPOTS, 0.06, polyp),
    Plan(
        Kind("bleeding", "bleeding", "a spot of bleeding", "spots of bleeding"),
        GUT_SPOTS,
        0.05,
        lumpy((0.5, 0.0, 0.02), soft=0.03),
    ),
    Plan(Kind("ulcer", "erosion", "an ulcer", "ulcers"), GUT_SPOTS, 0.055, ulcer),
    Plan(
        Kind("stricture", "narrowing", "a narrowed passage"),
        (Spot("middle of the picture", None, 0, 0, 0, 0),),
        0.2,
        sized=False,
    ),
    Plan(Kind("clip", "device", "a metal clip", "metal clips"), GUT_SPOTS, 0.09, clip, sized=False),
)

PHOTOS: Final = (
    Scene("eye", "fundus photograph", None, FUNDUS, paint_fundus, round_finish),
    Scene("foot", "photograph", None, SOLE, paint_sole, photo_finish),
    Scene("lower_limb", "photograph", None, LIMB, paint_leg, photo_finish, tilt=15),
    Scene("upper_limb", "photograph", None, LIMB, paint_arm, photo_finish, tilt=15),
    Scene("oral_cavity", "photograph", None, MOUTH, paint_mouth, photo_finish),
    Scene("gastrointestinal_tract", "endoscopy", None, GUT, paint_gut, round_finish, tilt=12),
)
