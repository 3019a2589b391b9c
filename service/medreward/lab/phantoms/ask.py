"""Asks questions about a phantom, worded in several ways, some of which are held out from training.

What is asked about a phantom is decided so that, over many phantoms, each wording has every answer equally often. So
the text of a question alone says nothing about its answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.draw import FAMILIES, REGIONS, Finding, Phantom
from medreward.lab.phantoms.scenes import SCENES, Plan

PHRASINGS: Final[dict[str, tuple[str, ...]]] = {
    "presence": (
        "Is there {one} in this image?",
        "Does the image show {one}?",
        "Can {one} be seen here?",
        "Is {one} present?",
        "Do you see {one}?",
        "Would you report {one} on this picture?",
        "Is {one} among the findings?",
        "Looking at this image, is {one} visible?",
    ),
    "normality": (
        "Is there anything abnormal in this image?",
        "Does this image show an abnormality?",
        "Is something wrong in this picture?",
        "Are there abnormal findings here?",
        "Would a physician call this image abnormal?",
        "Is any disease or device visible here?",
    ),
    "kind": (
        "What is the main finding?",
        "What abnormality does this image show?",
        "Which abnormality can be seen here?",
        "What is wrong in this picture?",
        "Name the finding in this image.",
        "What would you report on this image?",
        "What does this picture reveal?",
        "Which change from the normal do you see?",
    ),
    "count": (
        "How many {many} are there?",
        "What is the number of {many}?",
        "How many {many} can you count?",
        "Count the {many} in this image.",
        "How many {many} does the image show?",
        "Give the number of {many} that are visible.",
        "In this picture, how many {many} do you find?",
    ),
    "side": (
        "On which side is the finding?",
        "Which side is affected?",
        "Is the finding on the right or the left?",
        "On which side of the patient does the abnormality lie?",
        "Right or left: where is the abnormality?",
        "Which side of the body shows the change?",
        "What is the laterality of the finding?",
    ),
    "place": (
        "Where is the finding?",
        "Where in this image does the abnormality lie?",
        "What is the location of the finding?",
        "Which part is affected?",
        "In which part does the abnormality lie?",
        "Name the place of the finding.",
        "Can you say where the change is seen?",
    ),
    "size": (
        "How large is the finding?",
        "Is the finding small, medium or large?",
        "What is the size of the abnormality?",
        "How big is the abnormality?",
        "Describe the size of the finding: small, medium or large.",
        "Would you call the abnormality small, medium or large?",
    ),
    "modality": (
        "Which imaging modality is this?",
        "What kind of image is this?",
        "How was this image taken?",
        "Name the modality.",
        "With which technique was this picture made?",
        "What type of examination produced this image?",
    ),
    "plane": (
        "In which plane or view is the image taken?",
        "Which view is this?",
        "What is the plane of this image?",
        "Which plane does the picture show?",
        "Name the plane or view.",
    ),
    "region": (
        "Which part of the body is shown?",
        "What region of the body is this?",
        "Which organ or region does the image show?",
        "What part of the body was examined?",
        "Name the region of the body in this picture.",
        "Where in the body was this image taken?",
    ),
    "comparison": (
        "On which side is the larger one?",
        "There is one on each side: which is larger, the right or the left?",
        "Comparing both sides, where is the larger finding?",
        "Which side shows the bigger abnormality?",
        "Of the two findings, which side has the greater one?",
    ),
    "description": (
        "Describe this image.",
        "Describe the findings.",
        "What do you see in this image?",
        "Give a short report of this image.",
        "Summarise what this picture shows.",
        "Please report the findings.",
        "What would you tell a colleague about this picture?",
        "Put the picture into words.",
    ),
}
# The last quarter of each pool is never for training.
HELD_OUT_PHRASINGS: Final = {
    kind: frozenset(range(len(pool) - max(1, len(pool) // 4), len(pool))) for kind, pool in PHRASINGS.items()
}
NUMBERS: Final = ("one", "two", "three", "four")


@dataclass(frozen=True, slots=True)
class Question:
    """A question. `truth` is its right value, `choices` are all values that the same words could have, `about` is the
    kind of finding that it names.
    """

    text: str
    kind: str
    closed: bool
    phrasing: int
    held_out: bool
    truth: str
    choices: tuple[str, ...]
    about: str = ""
    families: tuple[str, ...] = FAMILIES


def questions(phantom: Phantom, seed: int, families: Sequence[str] = FAMILIES) -> list[Question]:
    """Returns one question of each kind that the phantom can answer, naming only these families of findings."""
    dice = Dice("questions", seed, phantom.seed)
    plans = [plan for plan in SCENES[phantom.scene].plans if plan.kind.family in families]
    asked = [*_about_the_image(phantom, dice), *_about_the_finding(phantom, plans, dice)]
    return [_worded(kind, truth, choices, about, families, dice) for kind, truth, choices, about in asked]


_Asked = tuple[str, str, tuple[str, ...], Plan | None]
YES_NO: Final = ("yes", "no")


def _about_the_image(phantom: Phantom, dice: Dice) -> list[_Asked]:
    asked: list[_Asked] = [("region", phantom.region, REGIONS, None), ("description", "", (), None)]
    if dice.chance(_evening(MODALITIES, phantom.modality)):
        asked.append(("modality", phantom.modality, tuple(MODALITIES), None))
    if phantom.plane and dice.chance(_evening(PLANES, phantom.plane)):
        asked.append(("plane", phantom.plane, tuple(PLANES), None))
    if not phantom.findings or dice.chance(1 / 3):  # a quarter are normal
        asked.append(("normality", "yes" if phantom.findings else "no", YES_NO, None))
    return asked


def _about_the_finding(phantom: Phantom, plans: list[Plan], dice: Dice) -> list[_Asked]:
    if not phantom.findings:
        return []
    first = phantom.findings[0]
    plan = next(plan for plan in SCENES[phantom.scene].plans if plan.kind.name == first.kind)
    others = [other for other in plans if other.kind.name != first.kind]
    asked: list[_Asked] = []
    if others:
        there = dice.chance(0.5)
        asked.append(("presence", "yes" if there else "no", YES_NO, plan if there else dice.pick(others)))
        asked.append(("kind", first.kind, (first.kind, *(other.kind.name for other in others)), plan))
    if len(phantom.findings) > 1:
        larger = next(finding for finding in phantom.findings if finding.size_word == "large")
        return [*asked, ("comparison", str(larger.side), ("right", "left"), plan)]
    # Two fifths of the countable ones are one to four in number: one alone would be seven times as frequent.
    if plan.kind.many and plan.look and (first.count > 1 or dice.chance(1 / 7)):
        asked.append(("count", NUMBERS[first.count - 1], NUMBERS, plan))
    return [*asked, *_whereabouts(phantom, first, plan)]


def _whereabouts(phantom: Phantom, finding: Finding, plan: Plan) -> list[_Asked]:
    asked: list[_Asked] = []
    sides = {spot.side for spot in plan.spots if spot.place == finding.place}
    if phantom.side or sides == {"right", "left"}:
        asked.append(("side", str(finding.side), ("right", "left"), plan))
    if len(plan.places()) > 1:
        asked.append(("place", finding.place, plan.places(), plan))
    if finding.size_word and finding.count == 1:
        asked.append(("size", finding.size_word, ("small", "medium", "large"), plan))
    return asked


def _worded(
    kind: str, truth: str, choices: tuple[str, ...], plan: Plan | None, families: Sequence[str], dice: Dice
) -> Question:
    phrasing = dice.below(len(PHRASINGS[kind]))
    one, many = (plan.kind.one, plan.kind.many or "") if plan else ("", "")
    text = PHRASINGS[kind][phrasing].format(one=one, many=many)
    held_out = phrasing in HELD_OUT_PHRASINGS[kind]
    return Question(
        text,
        kind,
        choices == YES_NO,
        phrasing,
        held_out,
        truth,
        choices,
        plan.kind.name if plan else "",
        tuple(families),
    )


def _shares(attribute: str) -> dict[str, Fraction]:
    """Returns how often each value is drawn: all regions equally often, and the scenes of a region too."""
    shares: dict[str, Fraction] = {}
    for scene in SCENES:
        value = getattr(scene, attribute)
        rivals = sum(other.region == scene.region for other in SCENES)
        if value:
            shares[value] = shares.get(value, Fraction(0)) + Fraction(1, rivals)
    return shares


MODALITIES: Final = _shares("modality")
PLANES: Final = _shares("plane")


def _evening(shares: dict[str, Fraction], value: str) -> float:
    """Returns how often to ask where the value is true, so that every value is the answer equally often."""
    return float(min(shares.values()) / shares[value])
