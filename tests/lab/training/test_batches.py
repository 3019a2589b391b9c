"""Pictures are mirrored where nothing that is said of them names a side, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest

from lab.training.shapes import tiny_recipe
from medreward.lab.training.attributes import Attributes
from medreward.lab.training.batches import Batches
from medreward.lab.training.cases import Case
from medreward.lab.training.images import Images, shaken
from medreward.lab.training.library import Library
from medreward.lab.training.texts import Texts
from medreward.lab.training.train import training_tokens

RED, GREEN = 0, 1


def case(question: str, answer: str, kind: str = "set/abnormality/open", image: str = "one") -> Case:
    return Case(image, question, answer, kind, kind, image, "")


@pytest.mark.parametrize(
    "sided",
    [
        case("Is the left lung clear?", "Yes"),
        case("What is wrong?", "Right-sided aortic arch"),
        case("What is wrong?", "RLL pneumonia"),
        case("Which side is larger?", "Neither"),
        case("Where is the mass?", "Above the kidney"),
        case("Is it near the border?", "Yes", "set/POS/closed"),
        case("What is wrong?", "Situs inversus"),
        case("Is there a mass?", "Yes", "phantom/all/presence/closed"),
    ],
)
def test_a_picture_of_which_a_side_is_named_is_never_mirrored(sided: Case) -> None:
    assert Library([case("Which plane?", "Lateral"), sided], {}).sideless == set()


def test_others_are() -> None:
    assert Library([case("Which plane?", "Lateral"), case("Is it bright?", "Yes")], {}).sideless == {"one"}


def test_a_mirrored_picture_is_the_same_the_other_way_round() -> None:
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    picture[0, :, :16] = 255
    straight, turned = (shaken(picture, [turn], [3])[0, 20:44].astype(float).mean((0, 2)) for turn in (False, True))
    assert straight[:8].mean() > 200 > 50 > straight[-8:].mean()
    assert turned[-8:].mean() > 200 > 50 > turned[:8].mean()


def test_batches_mirror_half_of_what_may_be_mirrored_and_nothing_else(encoder: Path) -> None:
    pixels = np.zeros((2, 64, 64, 3), np.uint8)
    pixels[RED, :, :16, RED] = pixels[GREEN, :, :16, GREEN] = 255
    cases = [case("Is it bright?", "Yes", image="red"), case("On which side is it?", "Left", image="green")]
    settings = tiny_recipe(encoder)
    settings = settings.model_copy(update={"warm_up": settings.warm_up.model_copy(update={"images": 2})})
    images, tokens = Images(pixels, ["red", "green"]), training_tokens(settings)
    batches = Batches(settings, Library(cases, {}), [], Texts([]), images, Attributes(cases), tokens)
    left = np.zeros((2, 40), bool)
    for step in range(40):
        for picture in batches.warm_up(step).pictures.numpy().astype(float):
            colour = picture.std((0, 1)).argmax()
            left[colour, step] = picture[:, :8, colour].mean() > picture[:, -8:, colour].mean()
    assert left[GREEN].all()
    assert 8 < left[RED].sum() < 32
