"""A screening policy: which verdict an answer gets for its numbers. It is a TOML file; docs/screening.md shows one."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from medreward.artifacts.toml import Section, parse_toml
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Dimension, Flag, Verdict

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Fraction = Annotated[float, Field(gt=0, lt=1)]

#: The rule that a decision names where no rule of the policy holds.
OTHERWISE: Final = "otherwise"


class Measure(StrEnum):
    """What a threshold is compared with. The first three are of one dimension."""

    LOGIT = "logit"
    SCORE = "score"
    UNCERTAINTY = "uncertainty"
    REWARD = "reward"
    LENGTH = "length"


OF_A_DIMENSION: Final = frozenset({Measure.LOGIT, Measure.SCORE, Measure.UNCERTAINTY})


class Rule(Section):
    """One condition and the verdict where it holds: a flag that is there, or a number below or from a threshold on."""

    name: Name
    verdict: Literal[Verdict.ALLOW, Verdict.REVIEW, Verdict.BLOCK]
    flag: Flag | None = None
    measure: Measure | None = None
    dimension: Dimension | None = None
    below: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _is_one_condition(self) -> Self:
        if self.name == OTHERWISE:
            raise ValueError(f"a rule may not be called {OTHERWISE}: so is what decides where no rule holds")
        if (self.flag is None) == (self.measure is None):
            raise ValueError(f"the rule {self.name} needs either flag or measure")
        thresholds = sum(threshold is not None for threshold in (self.below, self.at_least))
        if thresholds != (self.measure is not None):
            raise ValueError(f"the rule {self.name} needs one of below and at_least if it has a measure, else none")
        if (self.dimension is not None) != (self.measure in OF_A_DIMENSION):
            raise ValueError(f"the rule {self.name} needs a dimension if its measure is {', '.join(OF_A_DIMENSION)}")
        return self

    @property
    def threshold(self) -> float | None:
        """The number that decides; None for a rule about a flag."""
        return self.at_least if self.below is None else self.below


class FalseAllow(Section):
    """What `screen fit` promises, and the labels that it rests on."""

    at_most: Fraction = Field(description="of wrong answers, the share that is allowed is no larger")
    confidence: Fraction = Field(description="the probability that this holds, over draws of the labelled data")
    wrong: int = Field(ge=1, description="wrong answers among the labels")
    wrong_allowed: int = Field(ge=0, description="of these, how many the policy allows")
    right: int = Field(ge=0, description="right answers among the labels")
    right_allowed: int = Field(ge=0, description="of these, how many the policy allows")
    images: int = Field(ge=1, description="independent groups: answers about one image count together")
    data: str = Field(pattern="^sha256:[0-9a-f]{64}$", description="digest of the labelled file")


class FalseBlock(Section):
    """What `screen fit` promises of the rule that blocks, and the labels that it rests on."""

    at_most: Fraction = Field(description="of right answers, the share that is blocked is no larger")
    confidence: Fraction = Field(description="the probability that this holds, over draws of the labelled data")
    right: int = Field(ge=1, description="right answers among the labels")
    right_blocked: int = Field(ge=0, description="of these, how many the policy blocks")
    wrong_blocked: int = Field(ge=0, description="wrong answers that the policy blocks")
    images: int = Field(ge=1, description="images with a right answer: answers about one image count together")


class Policy(Section):
    """The verdict is that of the first rule that holds, or `otherwise`."""

    name: Name
    version: Version
    fingerprint: str = Field(pattern="^sha256:[0-9a-f]{64}$", description="of the model that it was made for")
    otherwise: Literal[Verdict.ALLOW, Verdict.REVIEW, Verdict.BLOCK] = Verdict.REVIEW
    weights: Mapping[Dimension, float] | None = Field(None, description="of the reward; by default the model's")
    rules: tuple[Rule, ...] = Field(min_length=1)
    departments: Mapping[Name, Mapping[Name, float]] = Field(
        {}, description="of a department: the threshold that a rule has there, by the rule's name"
    )
    false_allow: FalseAllow | None = None
    false_block: FalseBlock | None = None

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise ValueError("two rules have the same name")
        with_threshold = {rule.name for rule in self.rules if rule.measure}
        for department, thresholds in self.departments.items():
            if others := thresholds.keys() - with_threshold:
                raise ValueError(f"departments.{department} names {min(others)}, which is no rule with a threshold")
        return self

    def used(self, measures: frozenset[Measure]) -> set[str]:
        """Returns the dimensions that the rules on these measures need; for the reward those that have a weight."""
        dimensions: set[str] = {rule.dimension for rule in self.rules if rule.dimension and rule.measure in measures}
        if Measure.REWARD in measures and any(rule.measure is Measure.REWARD for rule in self.rules):
            dimensions |= {dimension for dimension, weight in (self.weights or {}).items() if weight}
        return dimensions


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy and the digest of the bytes it was read from: another digest is another policy."""

    policy: Policy
    digest: str
    file: Path

    def as_json(self) -> dict[str, str]:
        """Returns what an answer says of the policy."""
        return {"name": self.policy.name, "version": self.policy.version, "digest": self.digest}


def read_policy(file: Path) -> PolicyFile:
    """Returns the policy of a file; fails with one line that says what is wrong with it."""
    data = _bytes_of(file)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"policy {file} is not TOML: it is not UTF-8") from None
    return PolicyFile(parse_toml(text, file, Policy), _digest(data), file)


def digest_of(file: Path) -> str:
    """Returns the digest that the policy of this file has; fails where the file cannot be read."""
    return _digest(_bytes_of(file))


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"policy {file}: {error.strerror}") from None


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check_policy(file: PolicyFile, fingerprint: str, dimensions: tuple[str, ...], has_uncertainty: bool) -> None:
    """Fails where the policy was made for another model, or needs a number that this one does not give."""
    policy, about = file.policy, f"policy {file.policy.name} {file.policy.version}"
    if policy.fingerprint != fingerprint:
        raise ConfigurationError(
            f"{about} was made for the model {policy.fingerprint}, and {fingerprint} is served: thresholds do not "
            "carry over; make a policy for this model with `medreward screen fit`"
        )
    needed = policy.used(frozenset({Measure.LOGIT, Measure.SCORE, Measure.UNCERTAINTY, Measure.REWARD}))
    if lacking := [dimension for dimension in DIMENSIONS if dimension in needed - {*dimensions}]:
        raise ConfigurationError(f"{about} has a rule on {lacking[0]}, which the model does not have")
    if policy.used(frozenset({Measure.UNCERTAINTY})) and not has_uncertainty:
        raise ConfigurationError(f"{about} has a rule on uncertainty, and the model gives none")
