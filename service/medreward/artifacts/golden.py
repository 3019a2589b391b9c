"""`golden.json`: triples with the logits a healthy runtime must give them."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pvariance
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Six

EXACT: Final = 1e-4  # how far a logit may be from the golden one
BF16: Final = 0.5  # the same where numbers are coarse, in standard deviations of the logits that are wanted


@dataclass(frozen=True, slots=True)
class GoldenTriple:
    image: bytes | None  # PNG
    question: str
    response: str
    logits: Six


def tolerance(
    wanted: Sequence[Six], runtimes: Iterable[str], scales: Iterable[float] = (1.0,), exact: float = EXACT
) -> float:
    """In bf16 by how far the wanted logits lie apart, or where they do not, by the scales of the calibration."""
    if not any(runtime.endswith("/bf16") for runtime in runtimes):
        return exact
    columns = zip(*wanted, strict=True)
    known = [[logit for logit in column if logit is not None] for column in columns]
    apart = fmean([pvariance(logits) for logits in known if logits] or [0.0]) ** 0.5
    return BF16 * (apart or fmean(scales))


def _strict_base64(value: object) -> object:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image: Annotated[bytes | None, BeforeValidator(_strict_base64)]
    question: str
    response: str
    logits: dict[str, float | None]

    @model_validator(mode="after")
    def names_the_six(self) -> "_Row":
        if set(self.logits) != set(DIMENSIONS):
            raise ValueError("logits must name each of the six dimensions")
        return self

    def triple(self) -> GoldenTriple:
        logits = tuple(self.logits[dimension] for dimension in DIMENSIONS)
        return GoldenTriple(self.image, self.question, self.response, logits)


_ROWS = TypeAdapter(Annotated[list[_Row], Field(min_length=1)])


def read_golden(path: Path) -> list[GoldenTriple]:
    try:
        return [row.triple() for row in _ROWS.validate_json(path.read_bytes())]
    except OSError:
        raise ConfigurationError(f"no golden triples at {path}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{path}: {where}: {first['msg']}" if where else f"{path}: {first['msg']}") from None
