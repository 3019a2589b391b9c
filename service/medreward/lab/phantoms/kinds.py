"""What can be found in a picture: kinds, their families, and what is worth saying about each family."""

from dataclasses import dataclass
from typing import Final

FAMILIES: Final = (
    "mass",
    "cyst",
    "bleeding",
    "fracture",
    "calcification",
    "fluid",
    "device",
    "erosion",
    "enlargement",
    "missing",
    "narrowing",
)
HELD_OUT_FAMILIES: Final = ("cyst", "narrowing")
REGIONS: Final = (
    "abdomen",
    "brain",
    "breast",
    "chest",
    "eye",
    "foot",
    "gastrointestinal_tract",
    "heart",
    "lower_limb",
    "lung",
    "oral_cavity",
    "pelvic_cavity",
    "upper_limb",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A finding's name in the singular with its article, and in the plural where several can be counted."""

    name: str
    family: str
    one: str
    many: str | None = None


# What a physician would add about a family: why it matters, what else it might be, what to do next.
INSIGHTS: Final[dict[str, tuple[str, ...]]] = {
    "mass": (
        "A solid growth may be benign or malignant, so its borders and any growth since earlier images matter.",
        "Growth over time or an irregular edge would argue for taking tissue.",
        "The differential runs from a harmless growth to a tumour; tissue decides.",
    ),
    "cyst": (
        "A thin smooth wall and uniform fluid speak for a benign pocket rather than a solid growth.",
        "Septa or a solid part inside would change the picture, so these are what to look for.",
        "Simple fluid pockets are usually left alone unless they press on something.",
    ),
    "bleeding": (
        "How old the blood is changes its look, so the time since the first symptom matters.",
        "Blood thinners, injury and high pressure are the causes to ask about first.",
        "The danger lies less in the spot itself than in whether it grows.",
    ),
    "fracture": (
        "Alignment and whether the break reaches a joint decide between a cast and surgery.",
        "A break after little force should raise the question of weak bone.",
        "The nerves and vessels beyond the break are to be checked before anything else.",
    ),
    "calcification": (
        "Dense deposits are often old and harmless, but where they block a passage they hurt.",
        "Its density sets it apart from soft tissue: hardly anything else is that bright.",
        "Shape and grouping tell a harmless deposit from a worrying one.",
    ),
    "fluid": (
        "Fluid follows gravity, so its level changes with posture; that tells it from solid tissue.",
        "Heart failure, infection and tumour are the causes to separate.",
        "If it presses on its neighbours, draining it both helps and gives the diagnosis.",
    ),
    "device": (
        "Something made by hand has edges straighter and denser than anything in the body.",
        "What matters next is whether it sits where it was put and whether the tissue around it has loosened.",
        "It also tells of an earlier treatment, which the history should confirm.",
    ),
    "erosion": (
        "Loss of the surface opens the way to infection, so depth and edges are what to judge next.",
        "Pressure, poor blood flow and infection are the causes to weigh against each other.",
        "An edge that is raised or does not heal within weeks deserves a biopsy.",
    ),
    "enlargement": (
        "Enlargement is a sign rather than a disease: raised pressure, overload or blockage may stand behind it.",
        "Comparing with earlier images tells a long-standing change from a new one.",
        "Measuring it against a neighbouring structure is more reliable than judging by eye.",
    ),
    "missing": (
        "Whether it never formed or was removed is told by the history and by scars.",
        "What remains often carries the load of what is gone, so its state matters.",
        "An absent part is easy to overlook because nothing abnormal catches the eye.",
    ),
    "narrowing": (
        "The tightness matters less than what it does downstream, so function should be tested.",
        "Wear, scarring and pressure from outside are the causes to tell apart.",
        "A narrowing that comes on slowly is often better borne than it looks.",
    ),
}
