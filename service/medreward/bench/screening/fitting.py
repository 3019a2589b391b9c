"""Makes a policy from labelled answers, whose rate of allowed wrong answers is bounded."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from medreward.bench.screening.answers import Answer, column
from medreward.bench.screening.bounds import cut, draws, images_needed
from medreward.bench.screening.counting import with_counts
from medreward.bench.screening.guards import UNGUARDED, Guard, choose, eligible, guards
from medreward.bench.screening.wish import NotShownError, Wish
from medreward.bench.statistics import Floats
from medreward.errors import ConfigurationError
from medreward.screening.policy import Measure, Policy, Rule
from medreward.types import Verdict

#: Beside what the bound needs. Below it no labels are spared for the choice of a guard.
ROOM_TO_CHOOSE: Final = 6
#: What a policy's table of departments may have as a key.
DEPARTMENT: Final = re.compile("[a-z0-9][a-z0-9_-]{0,63}")
STEPS: Final = 10_000  # thresholds have four decimals, which people can read


@dataclass(frozen=True, slots=True)
class Fit:
    """A policy, the guard that its rules have, and what a reader of it has to know."""

    policy: Policy
    guard: Guard
    chosen_on: int  # images whose labels chose the guard and are not used for the bound; 0 where nothing was chosen
    allowed_of_drawn: int  # the most in a draw
    notes: Sequence[str]
    labels: Mapping[str, int]  # answers by who labelled them


def fit(answers: Sequence[Answer], wish: Wish) -> Fit:
    """Returns the policy that allows most right answers among those that the labels show to keep the bound.

    Raises NotShownError where no such policy can be shown, with how many images are missing.
    """
    _refuse_unusable(answers, wish)
    notes: list[str] = []
    tuning, bounding = _parts(answers, wish)
    before = _reviews(wish)
    guard = choose(tuning, guards(wish.guard, tuning, wish.dimension), before, wish) if tuning else UNGUARDED
    strata = _strata(bounding, wish, notes)
    risk = (1 - wish.confidence) / len(strata)
    thresholds = {name: _allow(part, [*before, *guard.rules], wish, 1 - risk, name) for name, part in strata.items()}
    departments = {name: threshold for name, threshold in thresholds.items() if name}
    allow = thresholds.get("", max(thresholds.values()))
    block = _block(bounding, before, wish, min(thresholds.values()), notes)
    rules = (*before, *block, *guard.rules, _rule("allow", Verdict.ALLOW, wish, at_least=allow))
    policy = Policy(
        name=wish.name,
        version=wish.version,
        fingerprint=wish.fingerprint,
        weights=wish.weights if wish.measure is Measure.REWARD else None,
        rules=rules,
        departments={name: {"allow": threshold} for name, threshold in departments.items()},
    )
    policy, allowed, unscored = with_counts(policy, bounding, wish)
    if unscored:
        notes.append(f"{unscored} answers could not be scored; they count as not allowed")
    labels = Counter(answer.evidence for answer in answers)
    return Fit(policy, guard, len({answer.image for answer in tuning}), allowed, notes, labels)


def _refuse_unusable(answers: Sequence[Answer], wish: Wish) -> None:
    what = f"logit of {wish.dimension}" if wish.dimension else "reward"
    if not answers:
        raise ConfigurationError("there are no labelled answers")
    if np.isnan(column(answers, wish.measure, wish.dimension)).all():
        raise ConfigurationError(f"no answer has a {what}: either none was scored, or the model does not give it")
    for right in (True, False):
        if not any(answer.right is right for answer in answers):
            raise NotShownError(f"no answer is labelled {'right' if right else 'wrong'}: both kinds are needed")


def _parts(answers: Sequence[Answer], wish: Wish) -> tuple[list[Answer], list[Answer]]:
    """Returns the answers that choose the guard, and those that show the bound: whole images, by their digest.

    What was looked at for a choice cannot show that the choice is good.
    """
    wrong = {answer.image for answer in answers if not answer.right}
    room = len(wrong) >= ROOM_TO_CHOOSE * images_needed(wish.max_false_allow, wish.confidence)
    if wish.guard == UNGUARDED.name or (wish.guard == "auto" and not room):
        return [], list(answers)
    third = {image for image in {answer.image for answer in answers} if _lot(image) % 3 == 0}
    return [one for one in answers if one.image in third], [one for one in answers if one.image not in third]


def _lot(image: str) -> int:
    return int.from_bytes(hashlib.sha256(f"choose {image}".encode()).digest()[:4])


def _reviews(wish: Wish) -> list[Rule]:
    """Returns the rules that send answers to review whatever the labels say."""
    flags = [
        Rule(name=f"flag-{flag}".replace("_", "-"), verdict=Verdict.REVIEW, flag=flag) for flag in wish.review_flags
    ]
    floors = [
        Rule(name=f"low-{name}", verdict=Verdict.REVIEW, measure=Measure.LOGIT, dimension=name, below=below)
        for name, below in wish.review_below.items()
    ]
    return [*flags, *floors]


def _rule(name: str, verdict: Verdict, wish: Wish, **threshold: float) -> Rule:
    return Rule.model_validate(
        {"name": name, "verdict": verdict, "measure": wish.measure, "dimension": wish.dimension, **threshold}
    )


def _strata(answers: Sequence[Answer], wish: Wish, notes: list[str]) -> dict[str, list[Answer]]:
    """Returns the answers by the department that gets a threshold of its own, and under "" those of all others.

    Each stratum has its part of the risk, so that all their bounds hold together with the confidence that was asked
    for, and with them that of the whole policy.
    """
    if not wish.by_department:
        return {"": list(answers)}
    wrong = {(one.department, one.image) for one in answers if not one.right}
    images = Counter(department for department, _ in wrong)
    named = [name for name, _ in images.most_common() if DEPARTMENT.fullmatch(name)]
    own: list[str] = []
    for count in range(len(named), 0, -1):
        enough = images_needed(wish.max_false_allow, 1 - (1 - wish.confidence) / (count + 1))
        rest = len({image for department, image in wrong if department not in named[:count]})
        if images[named[count - 1]] >= enough and (rest >= enough or rest == 0):
            own = named[:count]
            break
    needed = images_needed(wish.max_false_allow, 1 - (1 - wish.confidence) / 2)
    notes += [
        f"department {name}: the general threshold, for {number} images with a wrong answer; one of its own needs "
        f"{needed} or more, and as many elsewhere"
        for name, number in images.items()
        if name and name not in own
    ]
    strata = {name: [one for one in answers if one.department == name] for name in own}
    rest_of = [one for one in answers if one.department not in own]
    if any(not one.right for one in rest_of):
        strata[""] = rest_of
    return strata


def _allow(part: Sequence[Answer], before: Sequence[Rule], wish: Wish, confidence: float, department: str) -> float:
    """Returns the threshold from which on an answer is allowed; raises NotShownError where none can be shown."""
    wrong = [answer for answer in part if not answer.right]
    values = _passing_values(wrong, before, wish)
    drawn = draws(wrong)
    passed = cut(values, drawn, wish.max_false_allow, confidence)
    where = f"department {department}: " if department else ""
    if passed is None:
        needed, images = images_needed(wish.max_false_allow, confidence), len(drawn[0])
        raise NotShownError(
            f"{where}at most {wish.max_false_allow:.4g} at confidence {confidence:.4g} needs wrong answers about "
            f"{needed} images, and there are {images}: label wrong answers about {needed - images} more images (that "
            "suffices if none of them is then allowed), or accept a larger --max-false-allow"
        )
    everything = _passing_values(part, before, wish)
    there = everything[np.isfinite(everything)]
    if not len(there):
        raise NotShownError(f"{where}every answer goes to review by its flags or its other scores: nothing is allowed")
    return max(_just_above(passed), _at_or_below(float(there.min())))


def _passing_values(answers: Sequence[Answer], before: Sequence[Rule], wish: Wish) -> Floats:
    """Returns the number that decides; minus infinity for an answer that an earlier rule holds back, or unscored."""
    values = column(answers, wish.measure, wish.dimension)
    return np.where(eligible(answers, before, wish.fingerprint) & ~np.isnan(values), values, -np.inf)


def _just_above(number: float) -> float:
    """Returns the next number of four decimals that is larger."""
    if math.isinf(number):
        return -math.inf
    step = math.floor(number * STEPS) + 1
    return step / STEPS if step / STEPS > number else (step + 1) / STEPS


def _at_or_below(number: float) -> float:
    """Returns the next number of four decimals that is not larger."""
    step = math.floor(number * STEPS)
    return step / STEPS if step / STEPS <= number else (step - 1) / STEPS


def _block(answers: Sequence[Answer], before: Sequence[Rule], wish: Wish, allow: float, notes: list[str]) -> list[Rule]:
    """Returns the rule that blocks, at most below the threshold that allows; none where its bound cannot be shown."""
    right = [answer for answer in answers if answer.right]
    drawn = draws(right)
    passed = cut(-_blocked_values(right, before, wish), drawn, wish.max_false_block, wish.confidence)
    if passed is None:
        needed = images_needed(wish.max_false_block, wish.confidence)
        notes.append(
            f"no rule blocks: at most {wish.max_false_block:.4g} of right answers needs {needed} images with a right "
            f"answer, and there are {len(drawn[0])}; what is not allowed goes to review"
        )
        return []
    below = min(_at_or_below(-passed) if math.isfinite(passed) else allow, allow)
    return [_rule("block", Verdict.BLOCK, wish, below=below)]


def _blocked_values(answers: Sequence[Answer], before: Sequence[Rule], wish: Wish) -> Floats:
    """Returns the number that decides; infinity for an answer that cannot be blocked."""
    values = _passing_values(answers, before, wish)
    return np.where(np.isinf(values), np.inf, values)
