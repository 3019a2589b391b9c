"""`check`: what a policy does to labelled answers, and what that is worth elsewhere."""

from pathlib import Path

import pytest

from bench.screening.simulated import DATA, FINGERPRINT, answer, simulated, wish
from medreward.bench.screening.answers import Answer
from medreward.bench.screening.checking import Checked, check
from medreward.bench.screening.fitting import fit
from medreward.errors import Code, ItemError
from medreward.screening.policy import FalseAllow, Policy, PolicyFile, Rule
from medreward.types import Failed, Verdict

RULES = [
    {"name": "block", "verdict": "block", "measure": "logit", "dimension": "accuracy", "below": -1.0},
    {"name": "allow", "verdict": "allow", "measure": "logit", "dimension": "accuracy", "at_least": 1.0},
]


def policy_file(at_most: float | None = None, confidence: float = 0.95, data: str = DATA) -> PolicyFile:
    stated = None
    if at_most is not None:
        counts = {"wrong": 1, "wrong_allowed": 0, "right": 1, "right_allowed": 1, "images": 1}
        stated = FalseAllow(at_most=at_most, confidence=confidence, data=data, **counts)
    rules = tuple(Rule.model_validate(rule) for rule in RULES)
    policy = Policy(name="strict", version="1", fingerprint=FINGERPRINT, rules=rules, false_allow=stated)
    return PolicyFile(policy, f"sha256:{'c' * 64}", Path("strict/1.toml"))


def labelled(wrong_allowed: int, wrong: int, right_allowed: int = 30, right: int = 40) -> list[Answer]:
    """Returns answers about as many images; those that are not allowed lie in the middle."""
    return [
        *(answer(2.0 if n < wrong_allowed else 0.0, False, f"wrong {n}", organ="chest") for n in range(wrong)),
        *(answer(2.0 if n < right_allowed else 0.0, True, f"right {n}", organ="brain") for n in range(right)),
    ]


def matrix(checked: Checked) -> dict[str, dict[str, int]]:
    return {side: {str(verdict): one.count for verdict, one in row.items()} for side, row in checked.matrix.items()}


def test_every_answer_is_in_the_matrix_and_in_its_parts() -> None:
    lost = Failed(0, 0, ItemError(Code.IMAGE_INVALID, "no image"))
    answers = [
        *labelled(3, 20),
        answer(-2.0, False, "x", organ="chest"),
        Answer(True, "y", "Why?", "Yes.", lost, organ="chest"),
    ]
    checked = check(answers, policy_file(), DATA)
    assert matrix(checked) == {
        "right": {"allow": 30, "review": 10, "block": 0, "unscored": 1},
        "wrong": {"allow": 3, "review": 17, "block": 1, "unscored": 0},
    }
    parts = {(part.kind, part.name): part for part in checked.parts}
    assert list(parts) == [("organ", "brain"), ("organ", "chest")]
    assert parts["organ", "chest"].wrong_allowed.count == 3
    assert (parts["organ", "chest"].right_allowed.count, parts["organ", "chest"].right_allowed.of) == (0, 1)
    assert (parts["organ", "brain"].wrong_allowed.of, parts["organ", "brain"].wrong_allowed.value) == (0, None)
    share = checked.matrix["wrong"][Verdict.ALLOW]
    assert (share.low, share.high) == pytest.approx((0.030, 0.363), abs=1e-3)  # Clopper and Pearson's of 3 in 21


def test_what_a_verdict_is_worth_follows_from_bayes() -> None:
    """One in ten wrong answers and three in four right ones are allowed; one in twenty answers is wrong."""
    (row,) = check(labelled(10, 100), policy_file(), DATA, [0.05]).base_rates
    assert row.ppv == pytest.approx(0.05 * 0.9 / (0.05 * 0.9 + 0.95 * 0.25))
    assert row.npv == pytest.approx(0.95 * 0.75 / (0.95 * 0.75 + 0.05 * 0.1))
    for value, interval in ((row.ppv, row.ppv95), (row.npv, row.npv95)):
        assert value is not None
        assert interval is not None
        assert interval[0] < value < interval[1]


def test_nothing_is_worth_a_number_where_nothing_is_allowed() -> None:
    (row,) = check(labelled(0, 10, right_allowed=0), policy_file(), DATA, [0.05]).base_rates
    assert (row.npv, row.npv95) == (None, None)
    assert row.ppv == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("wrong_allowed", "wrong", "contradicted", "confirmed", "title"),
    [
        (0, 100, False, True, "Met"),
        (3, 40, False, False, "Not contradicted"),
        (12, 100, True, False, "Contradicted"),
    ],
)
def test_a_stated_bound_is_met_open_or_contradicted(
    wrong_allowed: int, wrong: int, contradicted: bool, confirmed: bool, title: str
) -> None:
    checked = check(labelled(wrong_allowed, wrong), policy_file(0.05), "sha256:others")
    assert checked.bound is not None
    assert (checked.bound.contradicted, checked.bound.confirmed) == (contradicted, confirmed)
    assert checked.in_words().title.startswith(title)
    assert not any("these very labels" in line for line in checked.in_words().lines)


def test_many_allowed_answers_about_one_image_contradict_nothing() -> None:
    answers = [*labelled(0, 60), *(answer(2.0, False, "wrong 1", number) for number in range(50))]
    checked = check(answers, policy_file(0.05), "sha256:others")
    assert checked.bound is not None
    assert (checked.bound.images, checked.bound.contradicted) == (60, False)
    assert checked.matrix["wrong"][Verdict.ALLOW].count == 50


def test_a_fitted_policy_meets_its_bound_on_its_own_labels_and_says_that_they_are() -> None:
    answers = simulated(80, 1)
    policy = fit(answers, wish(max_false_allow=0.1)).policy
    checked = check(answers, PolicyFile(policy, "sha256:x", Path("x.toml")), DATA)
    assert checked.bound is not None
    assert checked.bound.confirmed
    assert "The policy was made from these very labels: this is no independent check." in checked.in_words().lines
    stated = policy.false_allow
    assert stated is not None
    assert checked.matrix["right"][Verdict.ALLOW].count == stated.right_allowed
    assert checked.matrix["wrong"][Verdict.ALLOW].count == stated.wrong_allowed
