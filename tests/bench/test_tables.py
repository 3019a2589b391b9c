"""The strict figures, by hand."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.sets import some_cases
from medreward.bench.cases import Case
from medreward.bench.tables import summarise
from medreward.intervals import wilson
from medreward.types import DIMENSIONS


def prediction(case: Case, choice: str | None) -> dict[str, Any]:
    about = {"question_id": case.question_id, "organ": case.organ, "status": "ok" if choice else "too_long"}
    return about | {"choices": dict.fromkeys(DIMENSIONS, choice), "logits": None}


def labelled(organ: str, labels: str, **given: Any) -> list[Case]:
    """One case for each letter."""
    cases = some_cases(len(labels), [organ])
    return [replace(case, labels={"overall": letter}, **given) for case, letter in zip(cases, labels, strict=True)]


def overall(table: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = table["overall"]
    return row


def test_a_tie_is_half_right_and_an_unanswered_case_is_wrong() -> None:
    cases = labelled("eye", "ABAB")
    answers = ["A", "tie", "B", None]
    table = summarise(cases, [prediction(*pair) for pair in zip(cases, answers, strict=True)])
    row = overall(table["strict"]["micro"])
    assert (row["accuracy"], row["n"], row["correct"], row["ties"], row["unanswered"]) == (0.375, 4, 1, 1, 1)
    assert table["official"]["eye"]["overall"] == 0.25
    assert table["statuses"] == {"ok": 3, "too_long": 1}


def test_a_dimension_without_labels_has_no_figure_rather_than_a_zero() -> None:
    cases = labelled("eye", "AB")
    row = summarise(cases, [prediction(case, "A") for case in cases])["strict"]["macro"]["accuracy"]
    assert row == {"accuracy": None, "ci95": None, "n": 0, "correct": 0, "ties": 0, "unanswered": 0}


def test_macro_weighs_organs_alike_and_micro_cases() -> None:
    cases = [*labelled("eye", "A" * 9), *labelled("foot", "B")]
    strict = summarise(cases, [prediction(case, "A") for case in cases])["strict"]
    assert overall(strict["micro"])["accuracy"] == 0.9
    assert overall(strict["macro"])["accuracy"] == 0.5
    assert overall(strict["organ"]["eye"])["accuracy"] == 1


def test_departments_have_a_row_where_they_are_known() -> None:
    cases = [*labelled("eye", "AA", department="ophthalmology"), *labelled("foot", "B")]
    strict = summarise(cases, [prediction(case, "A") for case in cases])["strict"]
    assert {name: overall(table)["n"] for name, table in strict["department"].items()} == {"ophthalmology": 2}


@pytest.mark.parametrize(
    ("credit", "n", "low", "high"),  # from statsmodels.stats.proportion.proportion_confint, method "wilson"
    [
        (5.5, 10, 0.27366968961231825, 0.7985770304013928),
        (0, 10, 0.0, 0.27753279986288926),
        (10, 10, 0.72246720013711, 1),
    ],
)
def test_the_interval_is_wilsons(credit: float, n: int, low: float, high: float) -> None:
    assert wilson(credit, n) == pytest.approx((low, high), abs=1e-12)


def test_the_macro_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """13 organs of very different sizes, 300 runs: 285 are expected, and 274 is three standard deviations below."""
    chance = random.Random(1)
    sizes = {f"organ{n}": 5 * (n + 1) for n in range(13)}
    shares = {organ: chance.uniform(0.5, 0.95) for organ in sizes}
    truth = sum(shares.values()) / len(shares)
    covered = 0
    for _ in range(300):
        cases = [case for organ, size in sizes.items() for case in labelled(organ, "A" * size)]
        answered = [prediction(case, "A" if chance.random() < shares[case.organ] else "B") for case in cases]
        low, high = overall(summarise(cases, answered)["strict"]["macro"])["ci95"]
        covered += low <= truth <= high
    assert covered >= 274
