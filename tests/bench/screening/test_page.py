"""The page of `screen check`: what was checked, whose labels they are, and nothing that breaks it."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.screening.simulated import DATA, FINGERPRINT, simulated
from bench.screening.test_checking import policy_file
from browser import browser
from medreward.bench.report.screening import page
from medreward.bench.screening.answers import Answer
from medreward.bench.screening.checking import check
from medreward.bench.screening.estimating import Estimate
from medreward.types import Evidence, ModelRef, Runtime

MODEL = ModelRef("mini", "1", FINGERPRINT, Runtime("onnx", "cpu", "fp32"), Evidence.CONSTRUCTED)
HOSTILE = "<script>alert(1)</script>"


def answers() -> list[Answer]:
    organs = ("gastrointestinal_tract", "chest", HOSTILE)
    departments = ("radiology", "", "a department with a long name")
    return [
        replace(one, organ=organs[n % 3], department=departments[n // 2 % 3], set="a set")
        for n, one in enumerate(simulated(90, 1))
    ]


def shown(at_most: float) -> str:
    estimate = Estimate(0.031, (0.011, 0.052), 0.04, (0.0, 0.09), 0.7)
    checked = check(answers(), policy_file(at_most), DATA)
    return page(checked, MODEL, "labelled.jsonl", {"false_allow": estimate, "wrong_among_allowed": None})


def test_the_page_says_first_whether_the_bound_holds_and_whose_labels_these_are() -> None:
    text = shown(0.001)
    assert text.index("Constructed labels, not clinical evidence.") < text.index("<h1>")
    assert "Contradicted: more wrong answers are allowed than the policy states" in text
    assert "Of wrong answers, allowed" in text
    assert "3.1" in text
    assert HOSTILE not in text
    assert "Contradicted" not in shown(0.5)


@pytest.mark.slow
def test_the_page_fits_every_window_and_has_no_complaints(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(shown(0.5))
    with browser() as chromium:
        for width, scheme in ((400, "light"), (1000, "dark"), (1600, "light")):
            seen = chromium.open(file, width, scheme)
            assert (seen.overflow, seen.complaints) == (0, [])
            assert seen.requests == [file.as_uri()]
            assert width < 1600 or not seen.cut
