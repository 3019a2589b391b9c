"""Which rules beside the one threshold a policy may have, and which of them allows most right answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from medreward.bench.screening.answers import Answer, column
from medreward.bench.screening.wish import Wish
from medreward.errors import ConfigurationError
from medreward.screening.deciding import Decider
from medreward.screening.policy import Measure, Policy, Rule
from medreward.types import Verdict

UNCERTAIN: Final = (0.9, 0.75, 0.5)  # of right answers, the share that is sure enough
OFF_TOPIC: Final = 0.05  # of right answers, the share that is less relevant


@dataclass(frozen=True, slots=True)
class Guard:
    """Rules that send answers to review before the threshold is asked."""

    name: str
    rules: tuple[Rule, ...] = ()


UNGUARDED: Final = Guard("none")


def guards(wanted: str, tuning: Sequence[Answer], dimension: str | None) -> list[Guard]:
    """Returns the guards to choose among, the simplest first; their numbers come from the right answers.

    Raises ConfigurationError where a guard was asked for by name and the model does not give its number.
    """
    right = [answer for answer in tuning if answer.right]
    found = [UNGUARDED] if wanted in ("auto", UNGUARDED.name) else []
    sure = dimension or "overall"
    uncertainty, relevance = column(right, Measure.UNCERTAINTY, sure), column(right, Measure.LOGIT, "relevance")
    if wanted in ("auto", "uncertainty") and not np.isnan(uncertainty).all():
        found += [_uncertain(sure, float(np.nanquantile(uncertainty, share))) for share in UNCERTAIN]
    if wanted in ("auto", "relevance") and not np.isnan(relevance).all() and dimension != "relevance":
        found.append(_off_topic(float(np.nanquantile(relevance, OFF_TOPIC))))
    if not found:
        raise ConfigurationError(f"the guard {wanted} cannot be used: the model gives no {wanted} for these answers")
    return found


def choose(tuning: Sequence[Answer], among: Sequence[Guard], before: Sequence[Rule], wish: Wish) -> Guard:
    """Returns the guard that allows most right answers where it allows no more of the wrong ones than the bound."""
    right = np.array([answer.right for answer in tuning])
    values = column(tuning, wish.measure, wish.dimension)

    def allowed(guard: Guard) -> float:
        passing = np.where(eligible(tuning, [*before, *guard.rules], wish.fingerprint), values, -np.inf)
        passing = np.nan_to_num(passing, nan=-np.inf)
        wrong = np.sort(passing[~right])[::-1]
        above = wrong[int(wish.max_false_allow * len(wrong))] if len(wrong) else -np.inf
        return float((passing[right] > above).mean()) if right.any() else 0.0

    return max(among, key=allowed)  # the first of equals, which is the simplest


def eligible(answers: Sequence[Answer], rules: Sequence[Rule], fingerprint: str) -> npt.NDArray[np.bool_]:
    """Returns which answers no rule holds back, as the server itself decides."""
    if not rules:
        return np.ones(len(answers), dtype=bool)
    probe = Policy(name="probe", version="1", fingerprint=fingerprint, otherwise=Verdict.ALLOW, rules=tuple(rules))
    decider = Decider(probe, None)
    verdicts = (decider.decide(answer.result, answer.response).verdict for answer in answers)
    return np.array([verdict is Verdict.ALLOW for verdict in verdicts])


def _uncertain(dimension: str, above: float) -> Guard:
    rule = {"name": "uncertain", "verdict": Verdict.REVIEW, "measure": Measure.UNCERTAINTY, "dimension": dimension}
    return Guard("uncertainty", (Rule.model_validate({**rule, "at_least": round(above, 4)}),))


def _off_topic(below: float) -> Guard:
    rule = {"name": "off-topic", "verdict": Verdict.REVIEW, "measure": Measure.LOGIT, "dimension": "relevance"}
    return Guard("relevance", (Rule.model_validate({**rule, "below": round(below, 4)}),))
