"""Verdicts: the first rule that holds, its margin, and never an allow without a number."""

from pathlib import Path
from typing import Any

import pytest

from medreward.errors import Code, ItemError
from medreward.screening.deciding import Decider, Decision, Reason
from medreward.screening.policy import read_policy
from medreward.types import Failed, Flag, Scored, Six, Verdict
from policies import policy_text, publish, threshold

WEIGHTS = {"accuracy": 1.0, "overall": 0.5}
LOGITS = (1.0, 0.0, 0.0, 0.0, 0.0, 2.0)


def decider(folder: Path, rules: str, head: str = "") -> Decider:
    return Decider(read_policy(publish(folder, policy_text(rules, head=head))).policy, WEIGHTS)


def scored(logits: Six = LOGITS, **more: Any) -> Scored:
    return Scored(0, 0, logits, (0.5,) * 6, more.pop("uncertainty", None), None, **more)


def test_first_rule_that_holds_decides(tmp_path: Path) -> None:
    rules = threshold("surely", "allow", 2.0) + threshold("maybe", "review", 0.75)
    decide = decider(tmp_path, rules, 'otherwise = "block"').decide
    assert decide(scored(), "yes") == Decision(Verdict.REVIEW, (Reason("maybe", "accuracy", 1.0, 0.75),), 0.25)
    assert decide(scored((3.0, *LOGITS[1:])), "yes").verdict is Verdict.ALLOW
    low = decide(scored((0.5, *LOGITS[1:])), "yes")
    assert low == Decision(Verdict.BLOCK, (Reason("otherwise", "accuracy", 0.5, 0.75),), 0.25)


def test_threshold_itself_is_at_least_and_not_below(tmp_path: Path) -> None:
    assert decider(tmp_path, threshold("a", "allow", 1.0)).decide(scored(), "").verdict is Verdict.ALLOW
    below = threshold("a", "block", 1.0).replace("at_least", "below")
    assert decider(tmp_path, below).decide(scored(), "").verdict is Verdict.REVIEW


def test_flag_decides_before_the_numbers_that_follow(tmp_path: Path) -> None:
    flag = '[[rules]]\nname = "strange"\nverdict = "review"\nflag = "out_of_scope"\n'
    decide = decider(tmp_path, flag + threshold("a", "allow", 0.0)).decide
    assert decide(scored(flags=(Flag.OUT_OF_SCOPE,)), "") == Decision(Verdict.REVIEW, (Reason("strange"),))
    assert decide(scored(), "").verdict is Verdict.ALLOW


def test_reward_is_weighed_by_the_policy_and_never_by_the_request(tmp_path: Path) -> None:
    rule = '[[rules]]\nname = "r"\nverdict = "allow"\nmeasure = "reward"\nat_least = 2.0\n'
    assert decider(tmp_path, rule).decide(scored(), "").reasons[0].value == 2.0
    weighed = decider(tmp_path, f"{rule}[weights]\noverall = 3.0\n").decide(scored(), "")
    assert weighed.reasons[0].value == 6.0


def test_length_counts_the_characters_as_sent(tmp_path: Path) -> None:
    rule = '[[rules]]\nname = "long"\nverdict = "review"\nmeasure = "length"\nat_least = 4\n'
    decide = decider(tmp_path, rule + threshold("a", "allow", 0.0)).decide
    assert decide(scored(), "yes").verdict is Verdict.ALLOW
    assert decide(scored(), "yes.").reasons == (Reason("long", None, 4, 4.0),)


def test_department_has_its_own_thresholds_and_others_the_general_ones(tmp_path: Path) -> None:
    decide = decider(tmp_path, threshold("a", "allow", 0.5) + "[departments.dental]\na = 1.5\n").decide
    assert decide(scored(), "", "dental").verdict is Verdict.REVIEW
    assert decide(scored(), "", "eye").verdict is Verdict.ALLOW
    assert decide(scored(), "").verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    "result",
    [
        Failed(0, 0, ItemError(Code.WORKER_LOST, "gone")),
        scored((None, 0.0, 0.0, 0.0, 0.0, 2.0)),
    ],
)
def test_what_has_no_number_is_unscored_and_never_allowed(tmp_path: Path, result: Failed | Scored) -> None:
    decide = decider(tmp_path, threshold("a", "allow", -9.0), 'otherwise = "allow"').decide
    assert decide(result, "").verdict is Verdict.UNSCORED


def test_uncertainty_that_is_not_given_is_unscored(tmp_path: Path) -> None:
    rules = threshold("unsure", "review", 0.5, measure="uncertainty") + threshold("a", "allow", 0.0)
    decide = decider(tmp_path, rules).decide
    assert decide(scored(uncertainty=(0.1,) * 6), "").verdict is Verdict.ALLOW
    assert decide(scored(uncertainty=(0.9,) * 6), "").reasons[0].rule == "unsure"
    assert decide(scored(), "").verdict is Verdict.UNSCORED
