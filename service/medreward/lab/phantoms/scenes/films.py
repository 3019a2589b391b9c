"""X-ray pictures: chest, pelvis and limbs, teeth, breast."""

from typing import Final

from medreward.lab.phantoms.canvas import Canvas, Point
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.kinds import Kind
from medreward.lab.phantoms.scenes.base import (
    Changes,
    Plan,
    Scene,
    Spot,
    both_sides,
    changed,
    crack,
    exposed,
    grains,
    lumpy,
    plate,
    smooth,
    spiky,
)

LETTERS: Final[dict[str, tuple[tuple[Point, ...], ...]]] = {
    "R": (((0, 1), (0, 0), (0.5, 0), (0.6, 0.25), (0.5, 0.5), (0, 0.5)), ((0.25, 0.5), (0.6, 1))),
    "L": (((0, 0), (0, 1), (0.55, 1)),),
}


def film_finish(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    exposed(canvas, dice, 0.05)


def bone(canvas: Canvas, start: Point, end: Point, radius: float, end_radius: float | None = None) -> None:
    """Paints a long bone: a bright cortex around a duller marrow."""
    end_radius = radius if end_radius is None else end_radius
    canvas.blend(canvas.capsule(start, end, radius, end_radius), 0.82)
    canvas.blend(canvas.capsule(start, end, radius * 0.6, end_radius * 0.6, soft=radius * 0.5), 0.6)


def paint_chest(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    canvas.oval((0, 0.3), 0.98, 1.5, 0.62, soft=0.1)
    broad, low = dice.between(0.28, 0.33), dice.between(0.5, 0.6)
    for side in (-1, 1):
        canvas.oval((side * 0.42, -0.08), broad, low + 0.1, 0.2, side * -7, soft=0.06)
        canvas.oval((side * 0.45, low + 0.16 - 0.05 * side), broad + 0.12, 0.28, 0.68, soft=0.04)
    canvas.line([(0, -1.0), (0, 1.0)], 0.09, 0.72, 0.8)
    heart = 0.4 if "enlarged heart" in changes else 0.25
    canvas.oval((0.08 + heart * 0.3, 0.27), heart, 0.27 if heart < 0.3 else 0.33, 0.76, 25, soft=0.04)
    for side in (-1, 1):
        canvas.oval((side * 0.14, -0.04), 0.09, 0.14, 0.55, side * -20, soft=0.08)
        for rib in range(8):
            y = -0.62 + rib * 0.145
            reach = 0.56 + 0.02 * rib
            points = [
                (side * 0.09, y),
                (side * reach * 0.6, y - 0.06),
                (side * reach, y + 0.06),
                (side * (reach + 0.1), y + 0.22),
            ]
            for shape in canvas.path(points, 0.022):
                canvas.add(shape, 0.1)
        canvas.line([(side * 0.08, -0.68), (side * 0.66, -0.78)], 0.03, 0.75, 0.7)
    if "pleural effusion" in changes:
        side = 1 if changes["pleural effusion"].spot.side == "left" else -1
        canvas.oval((side * 0.5, 0.52), 0.33, 0.36, 0.86, -side * 12, soft=0.05)


def pacemaker(canvas: Canvas, dice: Dice, at: Point, radius: float) -> None:
    canvas.oval(at, radius, radius * 0.8, 1.0)
    canvas.line([at, (at[0] * 0.4, at[1] + 0.12), (0.05, -0.05), (0.14, 0.3)], 0.012, 1.0)


CHEST_SPOTS: Final = (
    *both_sides("upper zone", 0.4, -0.42, 0.05, 0.05),
    *both_sides("middle zone", 0.47, -0.12, 0.05, 0.05),
    *both_sides("lower zone", 0.52, 0.18, 0.03, 0.04),
)
CHEST: Final = (
    Plan(Kind("nodule", "mass", "a nodule", "nodules"), CHEST_SPOTS, 0.045, lumpy(0.8, soft=0.03)),
    Plan(
        Kind("air cyst", "cyst", "a thin-walled air cyst", "thin-walled air cysts"),
        CHEST_SPOTS,
        0.05,
        smooth(0.06, 0.62),
    ),
    Plan(
        Kind("calcified granuloma", "calcification", "a calcified granuloma", "calcified granulomas"),
        CHEST_SPOTS,
        0.03,
        lumpy(1.0),
    ),
    Plan(
        Kind("rib fracture", "fracture", "a rib fracture"),
        both_sides("middle ribs", 0.5, -0.16, 0.02, 0.01),
        0.085,
        crack(0.02, 0),
        sized=False,
    ),
    Plan(
        Kind("pleural effusion", "fluid", "a pleural effusion"),
        both_sides("lower zone", 0.5, 0.52, 0, 0),
        0.2,
        sized=False,
    ),
    Plan(
        Kind("enlarged heart", "enlargement", "enlargement of the heart"),
        (Spot("middle of the chest", None, 0.3, 0.3, 0, 0),),
        0.3,
        sized=False,
    ),
    Plan(
        Kind("pacemaker", "device", "a pacemaker"),
        both_sides("upper chest wall", 0.55, -0.55),
        0.1,
        pacemaker,
        sized=False,
    ),
)


def paint_hips(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    canvas.oval((0, 0), 0.95, 1.3, 0.36, soft=0.2)
    canvas.line([(0, -1.0), (0, -0.35)], 0.13, 0.62)
    canvas.oval((0, -0.28), 0.16, 0.22, 0.66)
    bladder = 0.3 if "distended bladder" in changes else 0.17
    for side, name in ((-1, "right"), (1, "left")):
        canvas.oval((side * 0.4, -0.42), 0.3, 0.24, 0.72, -side * 35)
        canvas.oval((side * 0.4, -0.42), 0.24, 0.18, 0.6, -side * 35, soft=0.05)
        canvas.line([(side * 0.28, -0.2), (side * 0.3, 0.0), (side * 0.1, 0.2), (0.02 * side, 0.22)], 0.05, 0.74)
        canvas.line([(side * 0.3, 0.0), (side * 0.28, 0.3), (side * 0.1, 0.3)], 0.045, 0.74)
        canvas.oval((side * 0.47, 0.0), 0.17, 0.17, 0.8)
        tight = changed(changes, "narrowed hip joint", side=name)
        canvas.oval(
            (side * 0.48, 0.01), 0.142 if not tight else 0.15, 0.142 if not tight else 0.15, 0.3 if not tight else 0.8
        )
        metal = changed(changes, "hip replacement", side=name)
        canvas.oval((side * 0.49, 0.03 if not tight else 0.02), 0.115, 0.115, 1.0 if metal else 0.76)
        bone(canvas, (side * 0.5, 0.05), (side * 0.68, 0.24), 0.06)
        bone(canvas, (side * 0.68, 0.22), (side * 0.62, 1.0), 0.09, 0.075)
        if metal:
            canvas.line([(side * 0.5, 0.05), (side * 0.67, 0.26), (side * 0.64, 0.75)], 0.035, 1.0)
    canvas.oval((0, 0.05), bladder, bladder * 0.8, 0.68, soft=0.03, opacity=0.8)


HIPS: Final = (
    Plan(
        Kind("bladder stone", "calcification", "a bladder stone", "bladder stones"),
        (Spot("bladder", None, 0, 0.03, 0.03, 0.02),),
        0.026,
        smooth(1.0),
    ),
    Plan(
        Kind("fracture", "fracture", "a fracture"),
        both_sides("femoral neck", 0.6, 0.15, 0.01, 0.01),
        0.09,
        crack(0.15, 45),
        sized=False,
    ),
    Plan(
        Kind("hip replacement", "device", "a hip replacement"),
        both_sides("hip joint", 0.49, 0.03, 0, 0),
        0.12,
        sized=False,
    ),
    Plan(
        Kind("narrowed hip joint", "narrowing", "narrowing of the hip joint space"),
        both_sides("hip joint", 0.48, 0.01, 0, 0),
        0.16,
        sized=False,
    ),
    Plan(
        Kind("distended bladder", "enlargement", "enlargement of the bladder"),
        (Spot("middle of the pelvis", None, 0, 0.05, 0, 0),),
        0.3,
        sized=False,
    ),
)


def paint_rays(canvas: Canvas, dice: Dice, changes: Changes, lost: str, joint: str, block: float) -> None:
    """Paints a hand or foot: five rays of bones on a block of small ones."""
    canvas.oval((0, 0.15), 0.46, 0.62, 0.25, soft=0.08)
    for ray in range(5):
        x = -0.4 + 0.2 * ray
        canvas.line([(x * 0.8, 0.2), (x * 1.15, -0.62 - 0.08 * (ray in (1, 2)))], 0.1, 0.25)
    for row in range(2):
        for step in range(4):
            canvas.oval((-0.24 + 0.16 * step, 0.42 + row * block), 0.085, block * 0.55, 0.8, dice.between(-15, 15))
            canvas.oval((-0.24 + 0.16 * step, 0.42 + row * block), 0.06, block * 0.38, 0.62, soft=0.03)
    for ray in range(5):
        x, stretch = -0.4 + 0.2 * ray, dice.between(-0.03, 0.03) - 0.07 * (ray in (1, 2, 3))
        bone(canvas, (x * 0.7, 0.27), (x * 0.95, -0.1 + stretch), 0.048)
        if changed(changes, lost, place=RAYS[ray]):
            continue
        tight = 0.055 if changed(changes, joint, place=RAYS[ray]) else 0.0
        bone(canvas, (x * 0.98, -0.23 + stretch + tight), (x * 1.06, -0.42 + stretch), 0.038)
        bone(canvas, (x * 1.08, -0.52 + stretch), (x * 1.14, -0.64 + stretch), 0.032)


RAYS: Final = (
    "first ray from the picture's left",
    "second ray from the picture's left",
    "third ray from the picture's left",
    "fourth ray from the picture's left",
    "fifth ray from the picture's left",
)


def ray_spots(y: float, part: float) -> tuple[Spot, ...]:
    return tuple(Spot(RAYS[ray], None, (-0.4 + 0.2 * ray) * part, y, 0.005, 0.03) for ray in range(5))


def paint_foot(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    canvas.oval((0.04, 0.85), 0.3, 0.3, 0.25, soft=0.08)
    canvas.oval((0.04, 0.84), 0.19, 0.24, 0.82)
    canvas.oval((0.04, 0.84), 0.15, 0.2, 0.6, soft=0.05)
    bone(canvas, (-0.28, 0.27), (-0.38, -0.1), 0.075)
    paint_rays(canvas, dice, changes, "missing toe", "narrowed joint", 0.21)


def paint_hand(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    canvas.line([(0, 0.6), (0, 1.4)], 0.26, 0.25)
    bone(canvas, (-0.1, 0.76), (-0.1, 1.4), 0.12)
    bone(canvas, (0.16, 0.76), (0.16, 1.4), 0.08)
    paint_rays(canvas, dice, changes, "missing finger", "narrowed joint", 0.14)


def ray_plans(missing: Kind) -> tuple[Plan, ...]:
    return (
        Plan(Kind("fracture", "fracture", "a fracture"), ray_spots(0.08, 0.82), 0.075, crack(0.1, 90), sized=False),
        Plan(Kind("bone cyst", "cyst", "a bone cyst"), ray_spots(0.08, 0.82), 0.036, smooth(0.2), sized=False),
        Plan(Kind("metal plate", "device", "a metal plate"), ray_spots(0.08, 0.82), 0.14, plate(1.0, 90), sized=False),
        Plan(missing, ray_spots(-0.45, 1.07), 0.12, sized=False),
        Plan(Kind("narrowed joint", "narrowing", "a narrowed joint"), ray_spots(-0.2, 0.97), 0.06, sized=False),
    )


def paint_knee(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    canvas.line([(0, -1.3), (0, 1.3)], dice.between(0.46, 0.56), 0.27)
    bone(canvas, (0, -1.3), (0, -0.3), 0.14, 0.19)
    bone(canvas, (0, 0.36), (-0.02, 1.3), 0.2, 0.13)
    bone(canvas, (0.3, 0.42), (0.27, 1.3), 0.07, 0.055)
    metal = "knee replacement" in changes
    shade = 1.0 if metal else 0.78
    for x, place in ((-0.15, "joint, left half of the picture"), (0.15, "joint, right half of the picture")):
        tight = changed(changes, "narrowed joint", place=place)
        canvas.oval((x, -0.16), 0.19, 0.18, shade)
        canvas.oval((x, 0.23 - (0.09 if tight else 0)), 0.19, 0.12, shade)
    canvas.oval((0, -0.24), 0.12, 0.14, 0.9 if not metal else 1.0, soft=0.03)
    canvas.line([(0, 0.25), (0, 0.5)], 0.03, 1.0 if metal else 0.62)


BONES: Final = (
    Spot("femur", None, 0, -0.62, 0.02, 0.12),
    Spot("tibia", None, -0.01, 0.72, 0.02, 0.1),
    Spot("fibula", None, 0.285, 0.8, 0.005, 0.1),
)
KNEE: Final = (
    Plan(Kind("fracture", "fracture", "a fracture"), BONES, 0.15, crack(0.1, 90), sized=False),
    Plan(Kind("bone cyst", "cyst", "a bone cyst"), BONES[:2], 0.04, smooth(0.2)),
    Plan(Kind("metal plate", "device", "a metal plate"), BONES[:2], 0.26, plate(1.0, 90), sized=False),
    Plan(
        Kind("loose body", "calcification", "a calcified loose body", "calcified loose bodies"),
        (
            Spot("left side of the joint in the picture", None, -0.42, -0.05),
            Spot("right side of the joint in the picture", None, 0.42, -0.05),
        ),
        0.03,
        smooth(0.98),
    ),
    Plan(
        Kind("narrowed joint", "narrowing", "a narrowed joint space"),
        (
            Spot("joint, left half of the picture", None, -0.15, 0.06, 0, 0),
            Spot("joint, right half of the picture", None, 0.15, 0.06, 0, 0),
        ),
        0.1,
        sized=False,
    ),
)


def paint_teeth(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    canvas.pixels[:] = 0.06
    for row in (-1, 1):
        canvas.line([(-1.2, row * 0.75), (1.2, row * 0.75)], 0.34, 0.42)
    for row, name in ((-1, "upper"), (1, "lower")):
        for step, third in enumerate(("left", "left", "middle", "right", "right")):
            x = -0.76 + 0.38 * step + dice.between(-0.015, 0.015)
            if changed(changes, "missing tooth", place=f"{name} row, {third} of the picture") and step in (1, 2, 3):
                continue
            for root in (-0.08, 0.08):
                canvas.blend(canvas.capsule((x + root, row * 0.4), (x + root * 1.2, row * 0.85), 0.075, 0.03), 0.66)
            canvas.oval((x, row * 0.24), 0.165, 0.2, 0.92)
            canvas.oval((x, row * 0.28), 0.12, 0.15, 0.72, soft=0.03)
            canvas.line([(x, row * 0.3), (x, row * 0.5)], 0.025, 0.45)


def tooth_spots(y: float, dx: float = 0.02) -> tuple[Spot, ...]:
    return tuple(
        Spot(f"{name} row, {third} of the picture", None, x, row * y, dx, 0.015)
        for row, name in ((-1, "upper"), (1, "lower"))
        for third, x in (("left", -0.38), ("middle", 0.0), ("right", 0.38))
    )


TEETH: Final = (
    Plan(Kind("tooth decay", "erosion", "tooth decay"), tooth_spots(0.17, 0.06), 0.045, lumpy(0.2, soft=0.02)),
    Plan(Kind("filling", "device", "a filling"), tooth_spots(0.15), 0.06, lumpy(1.0, soft=0.0)),
    Plan(Kind("missing tooth", "missing", "a missing tooth"), tooth_spots(0.3), 0.15, sized=False),
    Plan(Kind("root cyst", "cyst", "a cyst at the root"), tooth_spots(0.84), 0.055, smooth(0.12, 0.6)),
)


def paint_breast(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    canvas.oval((-1.0, 0), dice.between(1.4, 1.6), dice.between(0.78, 0.9), 0.32, soft=0.08)
    canvas.oval((0.56, 0), 0.05, 0.06, 0.45, soft=0.03)
    for _ in range(26):
        start = dice.between(-0.9, 0.35), dice.between(-0.4, 0.4)
        end = start[0] + dice.between(0.08, 0.3), start[1] * 0.8
        if end[0] < 0.5:
            canvas.blend(
                canvas.capsule(start, end, dice.between(0.015, 0.05), 0.01, soft=0.04), 0.52, dice.between(0.3, 0.7)
            )


BREAST_SPOTS: Final = tuple(
    Spot(f"{row} half, {depth}", None, x, y, 0.05, 0.05)
    for row, y in (("upper", -0.3), ("lower", 0.3))
    for depth, x in (("near the chest wall", -0.72), ("middle depth", -0.3), ("towards the nipple", 0.1))
)
BREAST: Final = (
    Plan(Kind("mass", "mass", "a spiculated mass"), BREAST_SPOTS, 0.05, spiky(0.92)),
    Plan(Kind("cyst", "cyst", "a round smooth cyst", "round smooth cysts"), BREAST_SPOTS, 0.05, smooth(0.74, 0.85)),
    Plan(Kind("calcifications", "calcification", "a cluster of calcifications"), BREAST_SPOTS, 0.055, grains(1.0, 11)),
    Plan(
        Kind("marker clip", "device", "a metal marker clip", "metal marker clips"),
        BREAST_SPOTS,
        0.04,
        plate(1.0, 30),
        sized=False,
    ),
)


def paint_forearm(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    canvas.line([(0, -1.3), (0, 1.3)], dice.between(0.36, 0.46), 0.27)
    bone(canvas, (-0.17, -0.62), (-0.15, 1.3), 0.13, 0.07)
    bone(canvas, (0.17, -0.66), (0.18, 1.3), 0.07, 0.12)
    for x, y in ((-0.24, -0.84), (-0.05, -0.86), (0.14, -0.84), (-0.18, -0.98), (0.05, -1.0)):
        canvas.oval((x, y), 0.09, 0.07, 0.78, dice.between(-20, 20))


FOREARM_SPOTS: Final = tuple(
    Spot(f"{name}, {third} of the picture", None, x, y, 0.01, 0.06)
    for name, x in (("radius", -0.16), ("ulna", 0.175))
    for third, y in (("upper third", -0.42), ("middle", 0.05), ("lower third", 0.5))
)
FOREARM: Final = (
    Plan(Kind("fracture", "fracture", "a fracture"), FOREARM_SPOTS, 0.11, crack(0.1, 90), sized=False),
    Plan(Kind("bone cyst", "cyst", "a bone cyst"), FOREARM_SPOTS, 0.042, smooth(0.2), sized=False),
    Plan(Kind("metal plate", "device", "a metal plate"), FOREARM_SPOTS, 0.22, plate(1.0, 90), sized=False),
)

FILMS: Final = (
    Scene("chest", "radiograph", "frontal", CHEST, paint_chest, film_finish),
    Scene("pelvic_cavity", "radiograph", "frontal", HIPS, paint_hips, film_finish),
    Scene(
        "foot",
        "radiograph",
        "frontal",
        ray_plans(Kind("missing toe", "missing", "a missing toe")),
        paint_foot,
        film_finish,
        lateral=True,
    ),
    Scene(
        "upper_limb",
        "radiograph",
        "frontal",
        ray_plans(Kind("missing finger", "missing", "a missing finger")),
        paint_hand,
        film_finish,
        lateral=True,
    ),
    Scene("upper_limb", "radiograph", "frontal", FOREARM, paint_forearm, film_finish, lateral=True),
    Scene("lower_limb", "radiograph", "frontal", KNEE, paint_knee, film_finish, lateral=True),
    Scene("oral_cavity", "dental radiograph", None, TEETH, paint_teeth, film_finish, tilt=4),
    Scene("breast", "mammogram", None, BREAST, paint_breast, film_finish, lateral=True, tilt=4),
)
