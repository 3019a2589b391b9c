"""A recipe is read strictly: what is unknown, missing or impossible is said in one line."""

from pathlib import Path

import pytest

from medreward.errors import ConfigurationError
from medreward.lab.vlm.recipe import is_vlm, read_recipe

WHOLE = """
kind = "vlm"
name = "mine"
version = "1"
base = "some/where"
evidence = "constructed"
license = "Apache-2.0"
provenance = "a test"
weights = { overall = 1.0 }
[learn]
steps = 10
[data]
"""


def test_a_whole_recipe_is_one_of_a_vlm(tmp_path: Path) -> None:
    file = tmp_path / "vlm.toml"
    file.write_text(WHOLE)
    assert is_vlm(file)
    assert read_recipe(file).learn.batch == 16
    file.write_text(WHOLE.replace('kind = "vlm"', ""))
    assert not is_vlm(file)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps = 10", "steps = 10\nstep = 3", "learn.step:"),
        ("steps = 10", "", "learn.steps:"),
        ("steps = 10", "steps = 10\nbatch = 10\nat_once = 4", "multiple of learn.at_once"),
        ("[data]", "[data]\nheld_share = 0.0", "held_share must be above 0"),
        ("[data]", "[data]\ndev_share = 0.6\nheld_share = 0.35", "less than a tenth"),
        ("overall = 1.0", "overal = 1.0", "weights"),
        ('"constructed"', '"made up"', "evidence"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_place(old: str, new: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "vlm.toml"
    file.write_text(WHOLE.replace(old, new))
    with pytest.raises(ConfigurationError) as refused:
        read_recipe(file)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
