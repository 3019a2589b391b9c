"""What a release must show, read from TOML. A section that is not there is not looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from medreward.artifacts.evidence import policy_digest, policy_file
from medreward.artifacts.toml import Section, read_toml
from medreward.types import DIMENSIONS, Dimension

Dimensions = Annotated[tuple[Dimension, ...], Field(min_length=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Alpha = Annotated[float, Field(gt=0, lt=0.5)]
Digest = Annotated[str, Field(pattern="^sha256:")]


class Pool(Section):
    """Dimensions whose cases are taken together."""

    dimensions: Dimensions
    margin: Fraction

    @property
    def name(self) -> str:
        return "all" if set(self.dimensions) == set(DIMENSIONS) else "+".join(self.dimensions)


class Calibration(Section):
    max_error: Fraction | None = None
    max_increase: Fraction | None = None


class Shortcuts(Section):
    dimensions: Dimensions
    gain: Fraction


class Parity(Section):
    tolerance: Annotated[float, Field(gt=0)]
    cases: Annotated[int, Field(ge=1, le=1000)]


class Load(Section):
    """The load: so many rounds, in which each endpoint in turn gets so many requests a second for so many seconds."""

    rate: Annotated[float, Field(gt=0, le=1000)]
    seconds: Annotated[float, Field(gt=0, le=60)]
    rounds: Annotated[int, Field(ge=3, le=60)]
    quantile: Fraction
    max_ratio: Annotated[float, Field(gt=1)]
    max_failed: Fraction
    max_ms: Annotated[float, Field(gt=0)] | None = None


class Pinned(Section):
    """What a promotion under this policy may rest on; runs on anything else are no decision."""

    data: Digest | None = None
    labels: tuple[str, ...] = ()  # kinds, as `bench run` counts them: physician, constructed, not stated
    baseline: Digest | None = None  # its fingerprint
    baseline_floors: Mapping[Dimension, Fraction] = {}  # the accuracy that a baseline must have to be one


class Policy(Section):
    dimensions: Dimensions = get_args(Dimension)
    pinned: Pinned | None = None
    require: tuple[Literal["baseline", "blanked", "url"], ...] = ()
    alpha: Alpha
    family_alpha: Alpha
    power: Fraction
    floors: dict[Dimension, Fraction] = Field(default_factory=dict)
    non_inferiority: tuple[Pool, ...] = ()
    no_organ_worse: bool = False
    organ_margin: Fraction = 0.1
    max_unanswered: Fraction | None = None
    calibration: Calibration | None = None
    shortcuts: Shortcuts | None = None
    parity: Parity | None = None
    smoke: bool = False
    load: Load | None = None

    @model_validator(mode="after")
    def _only_these_dimensions(self) -> Self:
        named = {*self.floors, *(d for pool in self.non_inferiority for d in pool.dimensions)}
        named |= {*self.shortcuts.dimensions} if self.shortcuts else set()
        named |= {*self.pinned.baseline_floors} if self.pinned else set()
        if others := [d for d in DIMENSIONS if d in named and d not in self.dimensions]:
            raise ValueError(f"{', '.join(others)} must be among `dimensions`, for the policy asks something of it")
        return self


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy and the bytes that it was read from: another digest is another policy."""

    name: str
    digest: str
    policy: Policy


def read_policy(name: str) -> NamedPolicy:
    """Returns the policy of a file, or one that the package brings, by its name."""
    file = policy_file(name)
    return NamedPolicy(name, policy_digest(file), read_toml(file, Policy, "policy"))
