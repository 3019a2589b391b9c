"""The text of a fitted policy: TOML with comments that say what it promises, and on what."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from medreward import __version__
from medreward.artifacts.toml import parse_toml
from medreward.bench.screening.bounds import upper
from medreward.bench.screening.fitting import Fit
from medreward.errors import ConfigurationError
from medreward.screening.policy import FalseAllow, Policy, Rule
from medreward.screening.policy_folder import POINTER

WORDS: Final[Mapping[str, str]] = {
    "none": "one threshold decides",
    "uncertainty": "answers that the model is unsure of go to review, and one threshold decides on the others",
    "relevance": "answers that are off the question go to review, and one threshold decides on the others",
}


def text_of(fit: Fit, made: Mapping[str, str]) -> str:
    """Returns the text of the policy's file; `made` holds what to say of how it was made, by name."""
    policy = fit.policy
    head = {"name": policy.name, "version": policy.version, "fingerprint": policy.fingerprint}
    parts = [
        *(f"# {line}" for line in promise(fit)),
        *(f"# {name}: {what}" for name, what in made.items()),
        f"# Made by medreward {__version__}. A published version does not change: give a change a new version.",
        "",
        *_lines({**head, "otherwise": policy.otherwise}),
        *(["", "[weights]", *_lines(policy.weights)] if policy.weights else []),
        *(line for rule in policy.rules for line in ("", "[[rules]]", *_rule(rule))),
    ]
    for department, thresholds in policy.departments.items():
        of_its_own = "# From the labels of this department alone; the rule itself has the threshold of all others."
        parts += ["", of_its_own, f"[departments.{department}]", *_lines(thresholds)]
    for name in ("false_allow", "false_block"):
        if table := getattr(policy, name):
            parts += ["", f"[{name}]", *_lines(table.model_dump())]
    return "\n".join(parts) + "\n"


def promise(fit: Fit) -> Iterator[str]:
    """Yields what the policy promises and what it does not, a line each."""
    bound = fit.policy.false_allow
    assert bound is not None
    images, limit = bound.images, upper(fit.allowed_of_drawn, bound.images, bound.confidence)
    yield (
        f"Of wrong answers at most {_percent(bound.at_most)} are allowed, at confidence {_percent(bound.confidence)}: "
        f"of {images} wrong answers, one drawn from each image, {fit.allowed_of_drawn} were allowed "
        f"(upper bound {_percent(limit)})."
    )
    yield (
        f"Of all {bound.wrong} wrong answers {bound.wrong_allowed} were allowed "
        f"({_percent(bound.wrong_allowed / bound.wrong)}), of {bound.right} right ones {bound.right_allowed} "
        f"({_percent(bound.right_allowed / bound.right)})."
    )
    if block := fit.policy.false_block:
        yield (
            f"Of right answers at most {_percent(block.at_most)} are blocked, at confidence "
            f"{_percent(block.confidence)}; {block.right_blocked} of {block.right} were, "
            f"and {block.wrong_blocked} of {bound.wrong} wrong ones."
        )
    yield f"Rules: {WORDS[fit.guard.name]}{_chosen(fit)}."
    yield from fit.notes
    yield labels_in_words(fit.labels)
    yield "It holds for answers, questions and images like the labelled ones, and for this model alone."


def labels_in_words(labels: Mapping[str, int]) -> str:
    """Returns who gave the labels, and what follows where it was no physician."""
    counted = ", ".join(f"{count} {kind}" for kind, count in labels.items())
    if set(labels) == {"physician"}:
        return f"Labels: {counted}."
    return f"Labels: {counted}. A label made by rule is not a physician's: nothing here says what one would think."


def published(policies: Path, fit: Fit, text: str) -> Path:
    """Writes the policy into a folder of policies and returns its file.

    The first version becomes the current one. A later one does not: the pointer is moved on purpose.
    """
    folder = policies / fit.policy.name
    pointer, others = folder / POINTER, sorted(folder.glob("*.toml"))
    file = write(folder / f"{fit.policy.version}.toml", text)
    if not pointer.exists() and len(others) <= 1:
        pointer.write_text(f"{others[0].stem if others else fit.policy.version}\n", "utf-8")
    return file


def write(file: Path, text: str) -> Path:
    """Writes a policy and returns its file; raises ConfigurationError where a file is there already."""
    parse_toml(text, file, Policy)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
    except FileExistsError:
        raise ConfigurationError(
            f"{file} already exists, and a published version does not change: name another --version"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror or error}") from None
    return file


def _chosen(fit: Fit) -> str:
    if not fit.chosen_on:
        return ""
    return f"; chosen on the labels of {fit.chosen_on} other images, which the figures above leave out"


def _rule(rule: Rule) -> list[str]:
    return _lines(rule.model_dump(mode="json", exclude_none=True))


def _lines(table: Mapping[Any, Any]) -> list[str]:
    """Returns keys and values as TOML; texts and numbers are written there as in JSON."""
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]


def _percent(value: float) -> str:
    return f"{100 * value:.4g}%"


def as_json(fit: Fit, file: Path, digest: str) -> dict[str, Any]:
    """Returns what `screen fit --json` prints."""
    bound = fit.policy.false_allow
    assert isinstance(bound, FalseAllow)
    thresholds = {rule.name: rule.threshold for rule in fit.policy.rules if rule.threshold is not None}
    return {
        "out": str(file),
        "name": fit.policy.name,
        "version": fit.policy.version,
        "digest": digest,
        "fingerprint": fit.policy.fingerprint,
        "guard": fit.guard.name,
        "chosen_on": fit.chosen_on,
        "thresholds": thresholds,
        "departments": fit.policy.model_dump(mode="json")["departments"],
        "false_allow": {
            **bound.model_dump(),
            "upper": upper(fit.allowed_of_drawn, bound.images, bound.confidence),
            "wrong_share": bound.wrong_allowed / bound.wrong,
            "right_share": bound.right_allowed / bound.right,
        },
        "false_block": fit.policy.false_block and fit.policy.false_block.model_dump(),
        "labels": dict(fit.labels),
        "notes": list(fit.notes),
    }
