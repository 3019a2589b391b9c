"""Pictures are mirrored where nothing that is said of them names a side, and nowhere else."""

import numpy as np
import pytest

from medreward.training.cases import Case
from medreward.training.images import shaken
from medreward.training.library import Library


def case(question: str, answer: str, kind: str = "set/abnormality/open") -> Case:
    return Case("one", question, answer, kind, kind, "one", "")


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
