"""Graded answers to a question about a phantom.

An answer is made from a recipe: what it claims, how much of what is needed it says, what insight it adds, in what
manner, and whether it keeps to the point. Each part decides one dimension, by the definitions of the dimensions, and
comes in short and long words, so that neither a sentence nor the length gives the grade of another dimension away. A
wrong claim is the right one to the same question about another phantom of the same scene.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from medreward.lab.phantoms import wording
from medreward.lab.phantoms.ask import NUMBERS, Question
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.draw import NORMAL, Phantom, imagine_like
from medreward.types import DIMENSIONS

FAILED: Final = 0.4
Claim: TypeAlias = Literal["right", "slip", "wrong", "none"]
Insight: TypeAlias = Literal["insight", "none", "boilerplate"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an answer is made of. Each part decides one dimension's grade."""

    claim: Claim = "right"
    scope: Literal["terse", "plain", "full"] = "plain"
    insight: Insight = "none"
    manner: Literal["direct", "hedged", "certain", "refusal", "asks_back", "other_question"] = "direct"
    focus: Literal["clean", "padded", "wandering", "off_topic"] = "clean"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's text, its grade on each dimension, and the dimensions that it fails."""

    text: str
    grades: dict[str, float]
    fails: tuple[str, ...]
    kind: str
    recipe: Recipe


RECIPES: Final[dict[str, Recipe]] = {
    "right": Recipe(),
    "right_full": Recipe(scope="full"),
    "terse": Recipe(scope="terse"),
    "insightful": Recipe(insight="insight"),
    "right_full_insightful": Recipe(scope="full", insight="insight"),
    "wrong": Recipe("wrong"),
    "wrong_full": Recipe("wrong", "full"),
    "wrong_terse": Recipe("wrong", "terse"),
    "wrong_insightful": Recipe("wrong", insight="insight"),
    "wrong_full_insightful": Recipe("wrong", "full", "insight"),
    "wrong_detail": Recipe("slip", "full"),
    "overconfident": Recipe(manner="certain"),
    "wrong_overconfident": Recipe("wrong", manner="certain"),
    "padded": Recipe(focus="padded"),
    "wandering": Recipe(focus="wandering"),
    "wrong_wandering": Recipe("wrong", focus="wandering"),
    "boilerplate": Recipe(insight="boilerplate"),
    "wrong_boilerplate": Recipe("wrong", insight="boilerplate"),
    "hedge": Recipe(manner="hedged"),
    "wrong_hedge": Recipe("wrong", manner="hedged"),
    "full_wandering": Recipe(scope="full", focus="wandering"),
    "terse_insightful": Recipe(scope="terse", insight="insight"),
    "hedge_full": Recipe(scope="full", manner="hedged"),
    "other_question": Recipe("none", manner="other_question"),
    "off_topic": Recipe("none", focus="off_topic"),
    "empty_boilerplate": Recipe("none", insight="boilerplate"),
    "refusal": Recipe("none", manner="refusal"),
    "asks_back": Recipe("none", manner="asks_back"),
}
WRONG_NAMES: Final = {"side": "other_side", "comparison": "other_side", "count": "wrong_count"}


def answers(phantom: Phantom, question: Question, seed: int) -> list[Answer]:
    """Returns an answer by each recipe that the question allows, in a short and in a long form."""
    given = []
    for kind, recipe in RECIPES.items():
        for wordy in (False, True):
            dice = Dice("answer", seed, phantom.seed, question.text, kind, wordy)
            if (answer := written(phantom, question, recipe, dice, wordy)) is not None:
                name = WRONG_NAMES.get(question.kind, kind) if kind == "wrong" else kind
                given.append(replace(answer, kind=name))
    return given


def written(phantom: Phantom, question: Question, recipe: Recipe, dice: Dice, wordy: bool) -> Answer | None:
    """Returns the answer by this recipe, or None where it gives none, as where there is no detail to be wrong about."""
    compose = _without_claim if recipe.claim == "none" else _with_claim
    text = compose(phantom, question, recipe, dice, wordy)
    if text is None:
        return None
    grades = graded(recipe)
    return Answer(text, grades, tuple(name for name in DIMENSIONS if grades[name] <= FAILED), "", recipe)


def graded(recipe: Recipe) -> dict[str, float]:
    """Returns the six grades of a recipe. Accuracy decides `overall` first: a right answer beats every wrong one."""
    accuracy = {"right": 1.0, "slip": 0.6, "wrong": 0.0, "none": 0.4}[recipe.claim]
    relevance = {"clean": 1.0, "padded": 0.75, "wandering": 0.4, "off_topic": 0.0}[recipe.focus]
    complete = {"terse": 0.3, "plain": 0.6, "full": 1.0}[recipe.scope]
    creativity = {"insight": 1.0, "none": 0.5, "boilerplate": 0.2}[recipe.insight]
    responsive = {
        "direct": 1.0,
        "certain": 1.0,
        "hedged": 0.4,
        "refusal": 0.0,
        "asks_back": 0.1,
        "other_question": 0.2,
    }[recipe.manner]
    if recipe.manner == "certain":
        accuracy = min(accuracy, 0.6)  # that nothing else is possible is itself a claim, and untrue
    if recipe.insight == "boilerplate":
        relevance = min(relevance, 0.7)
    if recipe.claim == "none":
        complete, creativity = 0.0, min(creativity, 0.2)
        relevance = min(relevance, 0.3)
        responsive = min(responsive, 0.2)
    others = (relevance + complete + creativity + responsive) / 4
    values = accuracy, relevance, complete, creativity, responsive, 0.7 * accuracy + 0.3 * others
    return {name: round(value, 3) for name, value in zip(DIMENSIONS, values, strict=True)}


def _without_claim(phantom: Phantom, question: Question, recipe: Recipe, dice: Dice, wordy: bool) -> str:
    """Returns an answer that does not say what was asked."""
    if recipe.manner == "other_question":
        kinds = [kind for kind in ("modality", "region") if kind != question.kind]
        kind = dice.pick(kinds)
        other = replace(question, kind=kind, closed=False)
        return wording.core(other, getattr(phantom, kind), dice, wordy)
    if recipe.manner == "refusal":
        return dice.pick(wording.REFUSALS[wordy])
    if recipe.manner == "asks_back":
        return dice.pick(wording.ASKED_BACK[wordy])
    if recipe.focus == "off_topic":
        return dice.pick(wording.ASIDES[wordy])
    return " ".join(dice.shuffled(wording.BOILERPLATE[wordy])[: 1 + dice.below(2)])


def _with_claim(phantom: Phantom, question: Question, recipe: Recipe, dice: Dice, wordy: bool) -> str | None:
    """Returns an answer that claims something, or None where the recipe's claim cannot be made."""
    value, claimed = _claim(phantom, question, recipe, dice)
    if claimed is None:
        return None
    parts = [_statement(question, value, claimed, recipe, dice, wordy)]
    if recipe.manner == "hedged":
        parts[0] = f"{dice.pick(wording.HEDGES[wordy])} {wording.small(parts[0])}"
    rest = []
    if recipe.scope == "full":
        technical = question.kind in ("modality", "plane", "region")
        more = wording.reason(value, dice, wordy) if technical else wording.everything(claimed, wordy, dice)
        rest.append(more)
    if recipe.manner == "certain":
        rest.append(dice.pick(wording.CERTAINTIES[wordy]))
    if recipe.insight == "insight":
        rest.append(wording.insight(question, value, claimed, dice))
    if recipe.insight == "boilerplate":
        rest.append(dice.pick(wording.BOILERPLATE[wordy]))
    if recipe.focus == "wandering":
        rest.append(dice.pick(wording.ASIDES[dice.below(2)]))
    if recipe.focus == "padded":
        rest.extend(dice.shuffled(wording.PADDING[wordy])[:2])
    return " ".join([*parts, *dice.shuffled(rest)])


def _claim(phantom: Phantom, question: Question, recipe: Recipe, dice: Dice) -> tuple[str, Phantom | None]:
    """Returns the value that is claimed, and the phantom of which it and all that goes with it would be true."""
    if question.kind == "description":
        return "", _described(phantom, recipe, question, dice)
    if recipe.claim == "right":
        return question.truth, phantom
    if recipe.claim == "slip":
        return question.truth, _slipped(phantom, question, dice)
    value = dice.pick([choice for choice in question.choices if choice != question.truth])
    return value, _fitting(phantom, question, value, dice)


def _described(phantom: Phantom, recipe: Recipe, question: Question, dice: Dice) -> Phantom | None:
    """Returns the phantom that a description with this claim is about, or None if none is found."""
    if recipe.claim == "right":
        return phantom
    if recipe.claim == "slip":
        return _slipped(phantom, question, dice)
    names = {finding.kind for finding in phantom.findings}
    return _imagined(phantom, question, dice, lambda other: {finding.kind for finding in other.findings} != names)


def _fitting(phantom: Phantom, question: Question, value: str, dice: Dice) -> Phantom | None:
    """Returns a phantom for which the value would be right, or None if none is found."""
    findings = phantom.findings
    match question.kind:
        case "presence":
            there = value == "yes"
            return _imagined(
                phantom, question, dice, lambda other: any(f.kind == question.about for f in other.findings) is there
            )
        case "normality":
            return _imagined(phantom, question, dice, lambda other: bool(other.findings) is (value == "yes"))
        case "kind":
            return _imagined(phantom, question, dice, lambda other: any(f.kind == value for f in other.findings))
        case "count":
            return _imagined(
                phantom,
                question,
                dice,
                lambda other: [(f.kind, NUMBERS[f.count - 1]) for f in other.findings] == [(question.about, value)],
            )
        case "side":
            other_side = value if phantom.side else None
            return replace(phantom, side=other_side, findings=tuple(replace(f, side=value) for f in findings))
        case "comparison":
            opposite = {"right": "left", "left": "right", None: "right"}
            return replace(phantom, findings=tuple(replace(f, side=opposite[f.side]) for f in findings))
        case "place":
            return _imagined(
                phantom,
                question,
                dice,
                lambda other: any(f.kind == question.about and f.place == value for f in other.findings),
            )
        case "size":
            return replace(phantom, findings=tuple(replace(f, size_word=value) for f in findings))
        case _:
            return phantom


def _imagined(phantom: Phantom, question: Question, dice: Dice, fits: Callable[[Phantom], bool]) -> Phantom | None:
    """Returns another phantom of the scene that fits, of families that the question may name; None after 400 tries."""
    for _ in range(400):
        other = imagine_like(
            dice.below(1 << 30), phantom.scene, NORMAL if question.kind == "normality" and dice.chance(0.3) else None
        )
        if fits(other) and all(finding.family in question.families for finding in other.findings):
            return other
    return None


def _slipped(phantom: Phantom, question: Question, dice: Dice) -> Phantom | None:
    """Returns the phantom with one detail of its finding changed that was not asked for, or None where it has none."""
    if len(phantom.findings) != 1 or question.kind in ("modality", "plane", "region") or question.truth == "no":
        return None
    finding = phantom.findings[0]
    if question.kind == "presence" and finding.kind != question.about:
        return None
    others = (
        _imagined(
            phantom,
            question,
            dice,
            lambda other: (
                len(other.findings) == 1
                and other.findings[0].kind == finding.kind
                and other.findings[0].place != finding.place
            ),
        )
        if question.kind != "place"
        else None
    )
    if others is not None:
        moved = others.findings[0]
        side = finding.side if question.kind == "side" else moved.side
        return replace(phantom, findings=(replace(finding, place=moved.place, side=side),))
    if finding.size_word and finding.count == 1 and question.kind != "size":
        word = dice.pick([size for size in ("small", "medium", "large") if size != finding.size_word])
        return replace(phantom, findings=(replace(finding, size_word=word),))
    return None


def _statement(question: Question, value: str, claimed: Phantom, recipe: Recipe, dice: Dice, wordy: bool) -> str:
    """Returns the sentence that answers the question."""
    if question.kind != "description":
        return wording.core(question, value, dice, wordy)
    if not claimed.findings:
        return wording.core(replace(question, kind="normality", closed=True), "no", dice, wordy)
    finding = claimed.findings[0]
    if recipe.scope == "terse":
        return wording.core(replace(question, kind="kind"), finding.kind, dice, wordy)
    what = wording.core(replace(question, kind="kind"), finding.kind, dice, wordy)
    return f"{what} {wording.core(replace(question, kind='place'), finding.place, dice, False)}"
