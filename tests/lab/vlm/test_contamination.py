"""No case of the benchmark that is to be measured is learnt from."""

import io

import pytest
from PIL import Image

from medreward.errors import ConfigurationError
from medreward.lab.training.served import Picture
from medreward.lab.vlm.contamination import clean
from medreward.lab.vlm.examples import Example
from medreward.lab.vlm.recipe import Data


def picture(name: str, grey: int, kind: str = "PNG") -> Picture:
    file = io.BytesIO()
    Image.new("L", (8, 8), grey).save(file, kind)
    return Picture(name, file.getvalue)


def pair(name: str, shown: Picture, question: str, first: str = "Yes.", second: str = "No.") -> Example:
    return Example(name, shown, question, (first, second))


LONG = "The fracture runs through the neck of the femur.", "No fracture is seen, and the joint is where it should be."
ASKED = "What does the radiograph show?"
MEASURED = [pair("case", picture("m", 10), "Is there a fracture?"), Example("text", None, ASKED, LONG)]
SAME_PIXELS = pair("same pixels", picture("a", 10, "BMP"), "Another question?")
SAME_TEXTS = Example("same texts", picture("b", 30), f"{ASKED.upper()}  ", LONG[::-1])
OWN = pair("own", picture("c", 40), "Is there a fracture?")


def test_rows_with_an_image_or_the_texts_of_a_case_stop_the_run() -> None:
    with pytest.raises(ConfigurationError, match=r"2 of 3 rows .* same pixels first"):
        clean([SAME_PIXELS, OWN, SAME_TEXTS], MEASURED, Data())


def test_they_are_left_out_where_the_recipe_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert clean([SAME_PIXELS, OWN, SAME_TEXTS], MEASURED, Data(contaminated="drop")) == [OWN]
    assert "2 rows are not learnt from" in caplog.text
    assert clean([OWN], MEASURED, Data()) == [OWN], "many images are asked for a fracture"


def test_texts_of_a_template_need_not_be_compared() -> None:
    by_image = Data(contaminated="drop", compare=("image",))
    assert clean([SAME_PIXELS, OWN, SAME_TEXTS], MEASURED, by_image) == [OWN, SAME_TEXTS]
