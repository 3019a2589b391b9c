"""What a release must show, read from TOML. A section that is not there is not looked at."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from medreward.artifacts.evidence import policy_digest, policy_file
from medreward.artifacts.toml import read_toml
from medreward.types import DIMENSIONS

Dimension = Literal["accuracy", "relevance", "comprehensiveness", "creativity", "responsiveness", "overall"]
Dimensions = Annotated[tuple[Dimension, ...], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Alpha = Annotated[float, Field(gt=0, lt=0.5)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Pool(Section):
    """Dimensions whose cases are taken together."""

    dimensions: Dimensions
    margin: Share

    @property
    def name(self) -> str:
        return "all" if set(self.dimensions) == set(DIMENSIONS) else "+".join(self.dimensions)


class Calibration(Section):
    max_error: Share | None = None
    max_increase: Share | None = None


class Shortcuts(Section):
    dimensions: Dimensions
    gain: Share


class Parity(Section):
    tolerance: Annotated[float, Field(gt=0)]
    cases: Annotated[int, Field(ge=1, le=1000)]


class Load(Section):
    """So many rounds, of so many seconds for each endpoint, in turns."""

    rate: Annotated[float, Field(gt=0, le=1000)]
    seconds: Annotated[float, Field(gt=0, le=60)]
    rounds: Annotated[int, Field(ge=3, le=60)]
    quantile: Share
    max_ratio: Annotated[float, Field(gt=1)]
    max_failed: Share
    max_ms: Annotated[float, Field(gt=0)] | None = None


class Policy(Section):
    require: tuple[Literal["baseline", "blanked", "url"], ...] = ()
    alpha: Alpha
    family_alpha: Alpha
    power: Share
    floors: dict[Dimension, Share] = {}
    non_inferiority: tuple[Pool, ...] = ()
    no_organ_worse: bool = False
    max_unanswered: Share | None = None
    calibration: Calibration | None = None
    shortcuts: Shortcuts | None = None
    parity: Parity | None = None
    smoke: bool = False
    load: Load | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A policy and the bytes that it was read from: another digest is another policy."""

    name: str
    digest: str
    policy: Policy


def read_policy(name: str) -> Written:
    """From a file, or `default`."""
    file = policy_file(name)
    return Written(name, policy_digest(file), read_toml(file, Policy, "policy"))
