"""Probes say the same thing otherwise, in words that no model learnt from; strangers are pictures."""

import re

import numpy as np
import pytest

from medreward.lab.training import probes, wording
from medreward.lab.training.images import fitted
from medreward.lab.training.strangers import strangers

ANSWERS = ("The answer is CT.", "left lower lung, xr - plain film", "On this study: cardiomegaly", "No", "2 tumors")


def test_no_probe_is_worded_as_what_is_learnt_from() -> None:
    learnt = {text for value in vars(wording).values() if isinstance(value, tuple) for text in value}
    assert learnt
    assert not learnt & {*probes.WORDED, *probes.FILLER, *probes.ORDERS}


def test_forms_grow_longer_and_keep_the_content() -> None:
    for forms in (probes.worded("a left rib"), probes.padded("a left rib")):
        lengths = [len(form) for form in forms]
        assert lengths == sorted(set(lengths))
        assert lengths[-1] > 5 * lengths[0]
        assert all("a left rib" in form for form in forms)


@pytest.mark.parametrize("answer", ANSWERS)
def test_no_change_touches_a_side(answer: str) -> None:
    for change in probes.CHANGES.values():
        if both := change("left rib, right rib", answer):
            before, after = (re.findall("left|right", text.lower()) for text in both)
            assert before == after


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ("The answer is CT.", "The answer is computed tomography."),
        ("magnetic resonance imaging", "mri"),
        ("X-Ray", "radiograph"),
        ("us - ultrasound", "us - sonography"),
        ("2", "two"),
    ],
)
def test_a_word_is_exchanged_for_one_that_means_the_same(answer: str, same: str) -> None:
    assert probes.synonym("", answer) == (answer, same)


@pytest.mark.parametrize("answer", ["active", "mrs. t12", "no"])
def test_a_part_of_a_word_is_no_word(answer: str) -> None:
    assert probes.synonym("", answer) is None


def test_a_list_is_turned_round() -> None:
    assert probes.list_order("liver, heart, lung", "") == ("Read as liver, heart, lung.", "Read as lung, heart, liver.")
    assert probes.list_order("liver", "") is None
    assert probes.list_order("left lung, liver", "") is None


def test_strangers_are_pictures_that_differ() -> None:
    drawn = {picture.name: fitted(picture.read(), 64) for _, picture in strangers(3)}
    assert len({pixels.tobytes() for name, pixels in drawn.items() if "blank" not in name}) == 18
    assert not np.ptp(drawn["stranger/landscape/1"], axis=2).any()  # grey
    assert np.ptp(drawn["stranger/landscape/2"], axis=2).any()
    again = {picture.name: fitted(picture.read(), 64) for _, picture in strangers(3)}
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)
