"""What a fitted policy does to the labels that show its bounds."""

from collections import Counter
from collections.abc import Sequence

from medreward.bench.screening.answers import Answer
from medreward.bench.screening.bounds import draws
from medreward.bench.screening.wish import NotShownError, Wish
from medreward.screening.deciding import Decider
from medreward.screening.policy import FalseAllow, FalseBlock, Policy
from medreward.types import Verdict

Counts = Counter[tuple[bool, Verdict]]


def with_counts(policy: Policy, answers: Sequence[Answer], wish: Wish) -> tuple[Policy, int, int]:
    """Returns the policy with its counts; the most wrong answers that it allows in a draw; how many are unscored.

    Raises NotShownError where it allows no right answer: such a policy is of no use.
    """
    decider = Decider(policy, None)
    verdicts = [decider.decide(one.result, one.response, one.department).verdict for one in answers]
    counts = Counter((one.right, verdict) for one, verdict in zip(answers, verdicts, strict=True))
    if not counts[True, Verdict.ALLOW]:
        raise NotShownError(
            f"no threshold allows a right answer and keeps wrong ones to {wish.max_false_allow:.4g}: accept a larger "
            "--max-false-allow, or use a model that tells them apart better"
        )
    wrong = [(one, verdict) for one, verdict in zip(answers, verdicts, strict=True) if not one.right]
    drawn = draws([one for one, _ in wrong])
    allowed = max(sum(wrong[place][1] is Verdict.ALLOW for place in places) for places in drawn)
    false_allow = FalseAllow(
        at_most=wish.max_false_allow,
        confidence=wish.confidence,
        wrong=len(wrong),
        wrong_allowed=counts[False, Verdict.ALLOW],
        right=len(answers) - len(wrong),
        right_allowed=counts[True, Verdict.ALLOW],
        images=len(drawn[0]),
        data=wish.data,
    )
    blocks = any(rule.verdict is Verdict.BLOCK for rule in policy.rules)
    update = {"false_allow": false_allow, "false_block": _false_block(counts, answers, wish) if blocks else None}
    return policy.model_copy(update=update), allowed, verdicts.count(Verdict.UNSCORED)


def _false_block(counts: Counts, answers: Sequence[Answer], wish: Wish) -> FalseBlock:
    right = [answer for answer in answers if answer.right]
    return FalseBlock(
        at_most=wish.max_false_block,
        confidence=wish.confidence,
        right=len(right),
        right_blocked=counts[True, Verdict.BLOCK],
        wrong_blocked=counts[False, Verdict.BLOCK],
        images=len({answer.image for answer in right}),
    )
