"""Draws phantoms: pictures that look like a region of the body and whose findings are known exactly.

Sides are the patient's, seen as physicians look at a picture: the patient's right is on the picture's left. A limb or a
breast on film carries its side as a letter. Places that name the picture ("left of the picture") mean the picture.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from medreward.lab.phantoms.canvas import Canvas, View
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.kinds import FAMILIES, HELD_OUT_FAMILIES, REGIONS
from medreward.lab.phantoms.scenes import SCENES, Lesion, Plan, Scene, Spot
from medreward.lab.phantoms.scenes.films import LETTERS

__all__ = [
    "FAMILIES",
    "HELD_OUT_FAMILIES",
    "NORMAL",
    "REGIONS",
    "Finding",
    "Phantom",
    "draw",
    "imagine",
    "imagine_like",
    "without_findings",
]

NORMAL: Final = "normal"
# Radii as multiples of the small one, far enough apart that no finding lies between two words.
SIZES: Final = {"small": 1.0, "medium": 1.75, "large": 3.0}
COUNTS: Final = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of finding: what it is, where, how large and how many; `centres` has each one's middle."""

    kind: str
    family: str
    one: str
    many: str | None
    side: str | None
    place: str
    centre: tuple[float, float]
    centres: tuple[tuple[float, float], ...]
    size: float
    size_word: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Phantom:
    """A picture and what is in it. A phantom that is only imagined has no pixels yet."""

    seed: int
    scene: int
    region: str
    modality: str
    plane: str | None
    side: str | None
    findings: tuple[Finding, ...]
    pixels: NDArray[np.uint8]

    @property
    def held_out(self) -> bool:
        return any(finding.family in HELD_OUT_FAMILIES for finding in self.findings)


def draw(seed: int, region: str | None = None, family: str | None = None, size: int = 256) -> Phantom:
    """Returns a phantom of this seed. Without a family a quarter are normal; with the family `NORMAL` all are."""
    return _painted(imagine(seed, region, family, size), size)


def imagine(seed: int, region: str | None = None, family: str | None = None, size: int = 256) -> Phantom:
    """Returns the phantom without its pixels; raises ValueError where the region has no such family."""
    dice = Dice("phantom", seed)
    wanted = [
        (number, scene)
        for number, scene in enumerate(SCENES)
        if region in (None, scene.region) and (family in (None, NORMAL) or _plans(scene, family))
    ]
    if not wanted:
        raise ValueError(f"no {region or 'region'} with {family}")
    chosen = dice.pick(sorted({scene.region for _, scene in wanted}))
    number = dice.pick([number for number, scene in wanted if scene.region == chosen])
    return imagine_like(seed, number, family, size)


def imagine_like(seed: int, number: int, family: str | None = None, size: int = 256) -> Phantom:
    """Returns a phantom of the scene with this number, without pixels."""
    scene, dice = SCENES[number], Dice("findings", seed)
    side = dice.pick(("right", "left")) if scene.lateral else None
    lesions = _lesions(scene, dice, family)
    findings = tuple(_finding(lesion, _view(seed, scene, size), side) for lesion in lesions)
    return Phantom(
        seed, number, scene.region, scene.modality, scene.plane, side, findings, np.empty((0, 0, 3), np.uint8)
    )


def without_findings(phantom: Phantom) -> Phantom:
    """Returns the same body drawn without its findings."""
    return _painted(replace(phantom, findings=()), len(phantom.pixels))


def _plans(scene: Scene, family: str | None) -> list[Plan]:
    return [plan for plan in scene.plans if family in (None, plan.kind.family)]


def _view(seed: int, scene: Scene, size: int) -> View:
    dice = Dice("view", seed)
    shift = dice.between(-scene.drift, scene.drift), dice.between(-scene.drift, scene.drift)
    return View(size, dice.between(*scene.zoom), dice.between(-scene.tilt, scene.tilt), shift)


def _lesions(scene: Scene, dice: Dice, family: str | None) -> tuple[Lesion, ...]:
    if family == NORMAL or (family is None and dice.chance(0.25)):
        return ()
    plan = dice.pick(_plans(scene, family))
    place = dice.pick(plan.places())
    spot = dice.pick([spot for spot in plan.spots if spot.place == place])
    pair = [other for other in plan.spots if other.place == spot.place]
    if plan.look and plan.sized and len(pair) == 2 and dice.chance(0.2):
        words = dice.shuffled(("small", "large"))
        return tuple(_lesion(plan, other, word, 1, dice) for other, word in zip(pair, words, strict=True))
    count = 1 + dice.below(COUNTS) if plan.kind.many and plan.look and dice.chance(0.4) else 1
    if count > 1:
        return (_lesion(plan, spot, "small", count, dice),)
    return (_lesion(plan, spot, dice.pick(tuple(SIZES)) if plan.sized else None, 1, dice),)


def _lesion(plan: Plan, spot: Spot, word: str | None, count: int, dice: Dice) -> Lesion:
    radius = plan.radius * (SIZES[word] * dice.between(0.92, 1.08) if word else 1)
    middle = spot.x + dice.between(-spot.dx, spot.dx), spot.y + dice.between(-spot.dy, spot.dy)
    if count == 1:
        return Lesion(plan, spot, (middle,), radius, word)
    corners = dice.shuffled(((-1, -1), (-1, 1), (1, -1), (1, 1)))[:count]
    apart = radius * 1.65
    points = tuple(
        (middle[0] + apart * x * dice.between(0.9, 1.1), middle[1] + apart * y * dice.between(0.9, 1.1))
        for x, y in corners
    )
    return Lesion(plan, spot, points, radius, word)


def _finding(lesion: Lesion, view: View, side: str | None) -> Finding:
    kind, centres = lesion.plan.kind, tuple(_rounded(view.on_image(*point)) for point in lesion.points)
    middle = sum(x for x, _ in centres) / len(centres), sum(y for _, y in centres) / len(centres)
    return Finding(
        kind.name,
        kind.family,
        kind.one,
        kind.many,
        lesion.spot.side or side,
        lesion.spot.place,
        _rounded(middle),
        centres,
        round(lesion.radius * view.zoom, 4),
        lesion.size,
        len(centres),
    )


def _rounded(point: tuple[float, float]) -> tuple[float, float]:
    return round(point[0], 4), round(point[1], 4)


def _painted(phantom: Phantom, size: int) -> Phantom:
    scene, seed = SCENES[phantom.scene], phantom.seed
    canvas = Canvas(_view(seed, scene, size))
    lesions = _placed(phantom, scene, canvas.view)
    scene.paint(
        canvas, Dice("anatomy", seed), {lesion.plan.kind.name: lesion for lesion in lesions if lesion.plan.look is None}
    )
    stamps = Dice("stamps", seed)
    for lesion in lesions:
        if lesion.plan.look is not None:
            for point in lesion.points:
                lesion.plan.look(canvas, stamps, point, lesion.radius)
    scene.finish(canvas, Dice("finish", seed), {})
    if phantom.side is not None:
        _letter(canvas, phantom.side[0].upper(), Dice("letter", seed))
    return replace(phantom, pixels=canvas.quantised())


def _placed(phantom: Phantom, scene: Scene, view: View) -> list[Lesion]:
    """Returns the findings in body coordinates, from where they lie in the picture."""
    lesions = []
    for finding in phantom.findings:
        plan = next(plan for plan in scene.plans if plan.kind.name == finding.kind)
        spot = next(spot for spot in plan.spots if spot.place == finding.place and spot.side in (None, finding.side))
        points = tuple(view.on_body(*centre) for centre in finding.centres)
        lesions.append(Lesion(plan, spot, points, finding.size / view.zoom, finding.size_word))
    return lesions


def _letter(canvas: Canvas, letter: str, dice: Dice) -> None:
    """Paints the side's letter into a corner of the film, upright whatever the tilt."""
    frame = Canvas(View(canvas.view.size))
    x, y = dice.pick((-0.92, 0.8)), dice.pick((-0.92, 0.76))
    for stroke in LETTERS[letter]:
        for shape in frame.path([(x + 0.14 * across, y + 0.16 * down) for across, down in stroke], 0.014):
            canvas.blend(shape, 1.0)
