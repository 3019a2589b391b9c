"""Cross-sections: CT of the abdomen, brain, lung and pelvis, MR of the brain."""

from dataclasses import dataclass
from typing import Final

from medreward.lab.phantoms.canvas import Canvas, turned
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
    smooth,
)

FAT: Final = 0.27
SOFT: Final = 0.5
BONE: Final = 0.93


def slice_finish(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    exposed(canvas, dice, 0.07)


@dataclass(frozen=True, slots=True)
class Tissue:
    """How bright a modality shows the parts of the head."""

    scalp: float
    skull: float
    grey: float
    white: float
    water: float


CT_HEAD: Final = Tissue(scalp=0.4, skull=0.97, grey=0.47, white=0.42, water=0.2)
MR_WATER_BRIGHT: Final = Tissue(scalp=0.7, skull=0.05, grey=0.56, white=0.4, water=0.95)
MR_WATER_DARK: Final = Tissue(scalp=0.85, skull=0.05, grey=0.42, white=0.6, water=0.1)


def paint_head(canvas: Canvas, dice: Dice, changes: Changes, tissue: Tissue) -> None:
    wide, tall = dice.between(0.66, 0.74), dice.between(0.82, 0.9)
    canvas.oval((0, 0), wide + 0.05, tall + 0.05, tissue.scalp)
    canvas.oval((0, 0), wide + 0.01, tall + 0.01, tissue.skull)
    if "skull defect" in changes:
        at = changes["skull defect"].points[0]
        canvas.oval(at, 0.2, 0.24, tissue.scalp * 0.6)
    canvas.oval((0, 0), wide - 0.06, tall - 0.06, tissue.water)
    canvas.oval((0, 0), wide - 0.08, tall - 0.08, tissue.grey, soft=0.03)
    for ring in range(26):
        cosine, sine = turned(ring * 360 / 26 + dice.between(-4, 4))
        depth = dice.between(0.72, 0.84)
        start = (wide - 0.08) * cosine, (tall - 0.08) * sine
        canvas.line([start, (start[0] * depth, start[1] * depth)], 0.009, tissue.water, 0.6)
    canvas.oval((0, 0), wide - 0.2, tall - 0.2, tissue.white, soft=0.09)
    size = canvas.view.size
    texture = dice.clouds(size, size, 22) * 0.05
    canvas.pixels += (texture * (canvas.pixels[..., 0] > 0.03))[..., None]
    canvas.line([(0, -tall + 0.09), (0, -0.36)], 0.009, tissue.water)
    canvas.line([(0, tall - 0.09), (0, 0.36)], 0.009, tissue.water)
    grown = 2.1 if "enlarged ventricles" in changes else 1.0
    broad = dice.between(0.055, 0.075) * grown
    for side in (-1, 1):
        canvas.oval((side * (0.05 + broad), -0.14), broad, 0.17 * (1 + grown) / 2, tissue.water, side * 14)
        canvas.oval((side * (0.06 + broad * 1.1), 0.16), broad * 0.9, 0.17 * (1 + grown) / 2, tissue.water, -side * 24)
        canvas.oval((side * (0.21 + broad * 0.5), -0.02), 0.07, 0.12, tissue.grey, side * 15, soft=0.03)


def paint_ct_head(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    dice.chance(0.5)
    paint_head(canvas, dice, changes, CT_HEAD)


def paint_mr_head(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    paint_head(canvas, dice, changes, MR_WATER_BRIGHT if dice.chance(0.5) else MR_WATER_DARK)


def shunt(canvas: Canvas, dice: Dice, at: tuple[float, float], radius: float) -> None:
    canvas.line([at, (at[0] * 3.2, at[1] - 0.12)], 0.018, 1.0)


TUMOUR: Final = Kind("tumour", "mass", "a tumour", "tumours")
BRAIN_BLEED: Final = Kind("haemorrhage", "bleeding", "a haemorrhage", "haemorrhages")
BRAIN_CYST: Final = Kind("cyst", "cyst", "a cyst", "cysts")
LOBES: Final = (
    *both_sides("frontal lobe", 0.26, -0.46, 0.04, 0.05),
    *both_sides("temporal lobe", 0.4, 0.08, 0.02, 0.06),
    *both_sides("occipital lobe", 0.23, 0.48, 0.04, 0.03),
)
VENTRICLES: Final = Plan(
    Kind("enlarged ventricles", "enlargement", "enlargement of the ventricles"),
    (Spot("centre of the brain", None, 0, 0, 0, 0),),
    0.3,
    sized=False,
)
SKULL_GAP: Final = Plan(
    Kind("skull defect", "missing", "a missing piece of skull"),
    both_sides("side of the skull", 0.67, 0, 0, 0.12),
    0.16,
    sized=False,
)
SHUNT: Final = Plan(
    Kind("shunt catheter", "device", "a shunt catheter"),
    both_sides("lateral ventricle", 0.16, 0.1, 0.01, 0.03),
    0.1,
    shunt,
    sized=False,
)


def paint_abdomen(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    wide, tall, fat = dice.between(0.84, 0.92), dice.between(0.6, 0.68), dice.between(0.05, 0.1)
    canvas.oval((0, 0), wide, tall, FAT)
    canvas.oval((0, 0), wide - fat, tall - fat, SOFT)
    canvas.oval((0, 0), wide - fat - 0.05, tall - fat - 0.05, FAT + 0.06)
    for step in range(12):
        cosine, sine = turned(15 + 30 * step + dice.between(-4, 4))
        if sine > -0.6:
            canvas.oval(((wide - fat - 0.03) * cosine, (tall - fat - 0.03) * sine), 0.05, 0.022, BONE, step * 30 + 105)
    liver = 0.57 + dice.between(-0.02, 0.02)
    organ = -0.36 + dice.between(-0.02, 0.02)
    canvas.oval((organ, -0.1), 0.38, 0.36, liver, 20)
    canvas.oval((organ + 0.28, -0.25), 0.24, 0.15, liver, 15)
    for _ in range(7):
        start = organ + dice.between(-0.2, 0.15), dice.between(-0.3, 0.1)
        end = start[0] + dice.between(-0.12, 0.12), start[1] + dice.between(-0.1, 0.1)
        canvas.line([start, end], 0.011, liver + 0.09)
    spleen = (0.2, 0.3) if "enlarged spleen" in changes else (0.1, 0.19)
    canvas.oval((0.72 - spleen[0], 0.08), *spleen, 0.6, -18)
    stomach = 0.3 + dice.between(-0.03, 0.03)
    canvas.oval((stomach, -0.28), 0.21, 0.14, SOFT, -12)
    canvas.oval((stomach, -0.3), 0.16, 0.08, 0.03, -12)
    canvas.oval((0.02, 0.4), 0.11, 0.1, BONE)
    canvas.oval((0.02, 0.4), 0.08, 0.07, BONE - 0.2)
    canvas.oval((0.02, 0.52), 0.045, 0.04, SOFT)
    canvas.line([(0.02, 0.56), (0.02, 0.6)], 0.02, BONE)
    canvas.oval((0.06, 0.24), 0.055, 0.055, 0.66)
    canvas.oval((-0.08, 0.23), 0.065, 0.05, 0.62)
    for side, name in ((-1, "right"), (1, "left")):
        turn = dice.between(-8, 8)
        if changed(changes, "missing kidney", side=name):
            continue
        canvas.oval((side * 0.36, 0.3), 0.12, 0.17, 0.68, side * 20 + turn)
        canvas.oval((side * 0.31, 0.3), 0.05, 0.08, FAT + 0.1, side * 20 + turn, soft=0.03)
        canvas.oval((side * 0.17, 0.42), 0.07, 0.09, SOFT)
    if "ascites" in changes:
        side = 1 if changes["ascites"].spot.side == "left" else -1
        canvas.line([(side * 0.69, -0.12), (side * 0.73, 0.0), (side * 0.71, 0.14), (side * 0.6, 0.3)], 0.05, 0.4)


ABDOMEN_PLANS: Final = (
    Plan(
        Kind("mass", "mass", "a mass", "masses"),
        (Spot("liver", "right", -0.42, -0.08, 0.07, 0.07), Spot("pancreas", None, 0.12, -0.02, 0.03, 0.02)),
        0.05,
        lumpy(0.36, 0.28),
    ),
    Plan(
        Kind("cyst", "cyst", "a cyst", "cysts"),
        (Spot("liver", "right", -0.42, -0.08, 0.07, 0.07), *both_sides("kidney", 0.38, 0.3, 0.01, 0.03)),
        0.045,
        smooth(0.16),
    ),
    Plan(Kind("stone", "calcification", "a stone", "stones"), both_sides("kidney", 0.35, 0.31), 0.022, smooth(1.0)),
    Plan(
        Kind("ascites", "fluid", "free fluid"),
        both_sides("flank", 0.72, 0.02, 0, 0),
        0.06,
        sized=False,
    ),
    Plan(
        Kind("enlarged spleen", "enlargement", "enlargement of the spleen"),
        (Spot("upper abdomen", "left", 0.53, 0.1, 0, 0),),
        0.2,
        sized=False,
    ),
    Plan(
        Kind("missing kidney", "missing", "an absent kidney"),
        both_sides("renal bed", 0.36, 0.3, 0, 0),
        0.12,
        sized=False,
    ),
    Plan(
        Kind("stent", "device", "a stent"),
        (Spot("aorta", None, 0.06, 0.24, 0, 0),),
        0.06,
        smooth(0.66, 1.0),
        sized=False,
    ),
)


def paint_lungs(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    wide, tall = dice.between(0.84, 0.92), dice.between(0.6, 0.68)
    canvas.oval((0, 0), wide, tall, FAT)
    canvas.oval((0, 0), wide - 0.06, tall - 0.05, SOFT)
    air = dice.between(0.07, 0.13)
    for side, name in ((-1, "right"), (1, "left")):
        lost = changed(changes, "collapsed lung", side=name)
        canvas.oval((side * 0.43, 0.0), 0.32, 0.46, air, side * 6)
        branches = [(dice.between(0, 360), dice.between(0.12, 0.3), dice.between(0.006, 0.016)) for _ in range(16)]
        for degrees, reach, thick in branches:
            cosine, sine = turned(degrees)
            start = side * 0.36 + 0.08 * cosine, 0.1 * sine
            end = side * 0.42 + reach * 0.8 * cosine, reach * 1.35 * sine
            canvas.blend(canvas.capsule(start, end, thick, thick * 0.3), 0.42)
        if lost:
            canvas.oval((side * 0.43, 0.0), 0.33, 0.47, SOFT - 0.02, side * 6)
            canvas.oval((side * 0.3, -0.16), 0.11, 0.16, air)
    canvas.oval((0.02, 0.0), 0.16, 0.3, SOFT, soft=0.03)
    canvas.oval((0.12, -0.12), 0.2, 0.22, SOFT + 0.06, 30)
    canvas.oval((0.09, 0.2), 0.06, 0.06, SOFT + 0.1)
    for step in range(14):
        cosine, sine = turned(13 + 360 / 14 * step + dice.between(-4, 4))
        canvas.oval(((wide - 0.09) * cosine, (tall - 0.08) * sine), 0.055, 0.022, BONE, 90 + 360 / 14 * step)
    canvas.oval((0.0, 0.42), 0.11, 0.1, BONE)
    canvas.oval((0.0, 0.53), 0.04, 0.035, SOFT)
    for side, name in ((-1, "right"), (1, "left")):
        if changed(changes, "effusion", side=name):
            canvas.line([(side * 0.66, 0.1), (side * 0.6, 0.3), (side * 0.44, 0.43), (side * 0.28, 0.42)], 0.085, 0.42)
        tight = changed(changes, "narrowed bronchus", side=name)
        canvas.oval((side * 0.08, -0.01), 0.05, 0.012 if tight else 0.05, 0.02)


LUNG_SPOTS: Final = (
    *both_sides("anterior part of the lung", 0.42, -0.24, 0.04, 0.03),
    *both_sides("middle of the lung", 0.52, 0.0, 0.04, 0.04),
    *both_sides("posterior part of the lung", 0.42, 0.24, 0.04, 0.03),
)
LUNG_PLANS: Final = (
    Plan(Kind("nodule", "mass", "a nodule", "nodules"), LUNG_SPOTS, 0.04, lumpy(0.56)),
    Plan(
        Kind("air cyst", "cyst", "a thin-walled air cyst", "thin-walled air cysts"), LUNG_SPOTS, 0.045, smooth(0.0, 0.5)
    ),
    Plan(
        Kind("bleeding", "bleeding", "a patch of bleeding", "patches of bleeding"),
        LUNG_SPOTS,
        0.06,
        smooth(0.36, soft=0.06),
    ),
    Plan(
        Kind("calcified granuloma", "calcification", "a calcified granuloma", "calcified granulomas"),
        LUNG_SPOTS,
        0.028,
        smooth(1.0),
    ),
    Plan(
        Kind("effusion", "fluid", "a pleural effusion"),
        both_sides("back of the chest", 0.46, 0.38, 0, 0),
        0.1,
        sized=False,
    ),
    Plan(
        Kind("collapsed lung", "missing", "a collapsed lung without air"),
        both_sides("lung", 0.5, 0.1, 0, 0),
        0.2,
        sized=False,
    ),
    Plan(
        Kind("narrowed bronchus", "narrowing", "a narrowed main bronchus"),
        both_sides("root of the lung", 0.08, -0.01, 0, 0),
        0.05,
        sized=False,
    ),
)


def paint_pelvis(canvas: Canvas, dice: Dice, changes: Changes) -> None:
    wide, tall = dice.between(0.86, 0.93), dice.between(0.56, 0.63)
    canvas.oval((0, 0), wide, tall, FAT)
    canvas.oval((0, 0.02), wide - 0.1, tall - 0.1, SOFT)
    canvas.oval((0, 0.0), 0.44, 0.38, FAT + 0.08)
    for side, name in ((-1, "right"), (1, "left")):
        canvas.oval((side * 0.5, 0.26), 0.22, 0.14, SOFT + 0.05, -side * 25)
        canvas.line([(side * 0.42, -0.22), (side * 0.46, 0.05), (side * 0.36, 0.24)], 0.055, BONE)
        canvas.line([(side * 0.42, -0.22), (side * 0.46, 0.05), (side * 0.36, 0.24)], 0.028, BONE - 0.22)
        metal = changed(changes, "hip replacement", side=name)
        canvas.oval((side * 0.6, -0.03), 0.12, 0.12, 1.0 if metal else BONE)
        if not metal:
            canvas.oval((side * 0.6, -0.03), 0.09, 0.09, BONE - 0.2)
        if metal:
            for degrees in (8, 52, 97, 141):
                cosine, sine = turned(degrees)
                ends = [(side * 0.6 + part * 0.42 * cosine, -0.03 + part * 0.42 * sine) for part in (-1, 1)]
                canvas.line(ends, 0.016, 0.9, 0.55)
    canvas.line([(-0.12, 0.4), (0.12, 0.4)], 0.06, BONE - 0.05)
    canvas.line([(-0.12, 0.4), (0.12, 0.4)], 0.035, BONE - 0.22)
    full = dice.between(0.17, 0.2)
    if "distended bladder" in changes:
        full *= 1.55
    canvas.oval((0, -0.16), full * 1.15, full * 0.9, SOFT, 0)
    canvas.oval((0, -0.16), full * 1.05, full * 0.82, 0.3, 0)
    canvas.oval((0.0, 0.1), 0.15, 0.09, SOFT + 0.05, dice.between(-10, 10))
    canvas.oval((0.01, 0.26), 0.085, 0.07, SOFT)
    canvas.oval((0.01, 0.25), 0.04, 0.03, 0.05)
    if "free fluid" in changes:
        side = 1 if changes["free fluid"].spot.side == "left" else -1
        canvas.line([(side * 0.33, -0.14), (side * 0.35, 0.05), (side * 0.24, 0.2)], 0.055, 0.4)


PELVIS_PLANS: Final = (
    Plan(
        Kind("mass", "mass", "a solid mass", "solid masses"),
        both_sides("adnexa", 0.24, 0.08, 0.01, 0.02),
        0.05,
        lumpy(0.63, 0.5),
    ),
    Plan(
        Kind("cyst", "cyst", "a cyst", "cysts"), both_sides("ovary", 0.25, 0.06, 0.01, 0.02), 0.05, smooth(0.14, 0.55)
    ),
    Plan(
        Kind("bladder stone", "calcification", "a bladder stone", "bladder stones"),
        (Spot("bladder", None, 0, -0.13, 0.03, 0.01),),
        0.025,
        smooth(1.0),
    ),
    Plan(
        Kind("free fluid", "fluid", "free fluid"), both_sides("side of the pelvis", 0.34, 0.02, 0, 0), 0.06, sized=False
    ),
    Plan(
        Kind("fracture", "fracture", "a fracture"),
        both_sides("hip bone", 0.45, 0.02, 0, 0.03),
        0.075,
        crack(0.4, 80),
        sized=False,
    ),
    Plan(
        Kind("hip replacement", "device", "a hip replacement"),
        both_sides("hip joint", 0.6, -0.03, 0, 0),
        0.12,
        sized=False,
    ),
    Plan(
        Kind("distended bladder", "enlargement", "enlargement of the bladder"),
        (Spot("middle of the pelvis", None, 0, -0.16, 0, 0),),
        0.28,
        sized=False,
    ),
)

SLICES: Final = (
    Scene(
        "brain",
        "CT",
        "axial",
        (
            Plan(TUMOUR, LOBES, 0.06, lumpy(0.58, 0.28)),
            Plan(BRAIN_BLEED, LOBES, 0.055, lumpy(0.86)),
            Plan(BRAIN_CYST, LOBES, 0.055, smooth(0.12)),
            Plan(Kind("calcification", "calcification", "a calcification", "calcifications"), LOBES, 0.04, grains(1.0)),
            VENTRICLES,
            SKULL_GAP,
            SHUNT,
        ),
        paint_ct_head,
        slice_finish,
    ),
    Scene(
        "brain",
        "MR",
        "axial",
        (
            Plan(TUMOUR, LOBES, 0.06, lumpy(0.97, 0.3)),
            Plan(BRAIN_BLEED, LOBES, 0.055, lumpy(0.04)),
            Plan(BRAIN_CYST, LOBES, 0.055, smooth(0.02, 0.98)),
            VENTRICLES,
        ),
        paint_mr_head,
        slice_finish,
    ),
    Scene("abdomen", "CT", "axial", ABDOMEN_PLANS, paint_abdomen, slice_finish),
    Scene("lung", "CT", "axial", LUNG_PLANS, paint_lungs, slice_finish),
    Scene("pelvic_cavity", "CT", "axial", PELVIS_PLANS, paint_pelvis, slice_finish),
)
