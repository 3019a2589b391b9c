"""The pictures that can be drawn, one scene for each look of a region."""

from typing import Final

from medreward.lab.phantoms.scenes.base import Lesion, Plan, Scene, Spot
from medreward.lab.phantoms.scenes.echoes import ECHOES
from medreward.lab.phantoms.scenes.films import FILMS
from medreward.lab.phantoms.scenes.photos import PHOTOS
from medreward.lab.phantoms.scenes.slices import SLICES

SCENES: Final[tuple[Scene, ...]] = (*SLICES, *FILMS, *ECHOES, *PHOTOS)

__all__ = ["SCENES", "Lesion", "Plan", "Scene", "Spot"]
