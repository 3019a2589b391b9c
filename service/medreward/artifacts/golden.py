"""`golden.json`: triples with the logits that a healthy runtime must give them."""

from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pvariance
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Runtime, Six

EXACT: Final = 1e-4  # how far a logit may be from the golden one
BF16: Final = 0.5  # the same where numbers are coarse, in standard deviations of the logits that are wanted


@dataclass(frozen=True, slots=True)
class GoldenTriple:
    image: bytes | None  # PNG
    question: str
    response: str
    logits: Six


def tolerance(
    wanted: Sequence[Six], runtimes: Iterable[Runtime], scales: Iterable[float] = (1.0,), exact: float = EXACT
) -> float:
    """Returns how far a logit may be from the wanted one.

    That is `exact`, or, if one of the runtimes is bf16, half of the standard deviation of the wanted logits. Where they
    do not differ (a single triple), the scales of the calibration stand for their deviation.
    """
    if not any(runtime.dtype == "bf16" for runtime in runtimes):
        return exact
    columns = zip(*wanted, strict=True)
    known = [[logit for logit in column if logit is not None] for column in columns]
    apart = fmean([pvariance(logits) for logits in known if logits] or [0.0]) ** 0.5
    return BF16 * (apart or fmean(scales))


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image: Annotated[bytes | None, BeforeValidator(lambda v: b64decode(v, validate=True) if isinstance(v, str) else v)]
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
    """Returns the golden triples in the file; fails where there is none or one of them is not what it should be."""
    try:
        return [row.triple() for row in _ROWS.validate_json(path.read_bytes())]
    except OSError:
        raise ConfigurationError(f"no golden triples at {path}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{path}: {where}: {first['msg']}" if where else f"{path}: {first['msg']}") from None
