"""What work costs on a device: measured, or reckoned from the maker's data sheet."""

import difflib
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from medreward.errors import ConfigurationError
from medreward.scale.simulation import Device
from medreward.scale.traffic import Size

NUMBERS: Final = (
    *("fixed_ms", "tokens_per_second", "image_tokens", "question_tokens", "answer_tokens", "memory_gib", "weights_gib"),
    *("start_seconds", "tflops", "efficiency", "batch_cost", "cached_images"),
)
TEXTS: Final = ("kind", "source", "model")
BF16_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Costs:
    """A device with a model on it. `size` has the tokens that the file names, None for those that it leaves open."""

    name: str
    kind: Literal["measured", "sheet"]
    source: str
    device: Device
    memory_gib: float
    weights_gib: float
    start_seconds: float
    image_tokens: int | None = None
    question_tokens: int | None = None
    answer_tokens: int | None = None

    def size(self, given: Size) -> Size:
        """Returns the sizes with those that this device's measurement is about."""
        named = (self.image_tokens, self.question_tokens, self.answer_tokens)
        asked = (given.image, given.question, given.answer)
        return Size(*(ask if own is None else own for own, ask in zip(named, asked, strict=True)))


def read_costs(name: str, file: Path | None, parameters: float | None) -> Costs:
    """Returns the costs of the device of this name. `parameters` is the size of the model, for a device whose rate is
    reckoned from its data sheet.

    Raises ConfigurationError where the file cannot be read or has a wrong entry, or where there is no such device.
    """
    text = _text(file)
    try:
        devices: dict[str, dict[str, Any]] = tomllib.loads(text)["devices"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise ConfigurationError(f"{file} is no file of costs: {error}") from None
    if name not in devices:
        close = difflib.get_close_matches(name, devices, n=1, cutoff=0.3)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigurationError(f"no costs of a device {name!r}{hint} Known are: {', '.join(devices)}")
    entry = devices[name]
    for key, value in entry.items():
        if key not in (*NUMBERS, *TEXTS):
            raise ConfigurationError(f"the costs of {name} have an unknown entry {key!r}")
        if key in NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise ConfigurationError(f"the costs of {name} have {key} = {value!r}: it must be a number from 0 on")
    try:
        return _costs(name, entry, parameters)
    except KeyError as missing:
        raise ConfigurationError(f"the costs of {name} lack {missing.args[0]!r}") from None


def _text(file: Path | None) -> str:
    if file is None:
        return resources.files("medreward.scale").joinpath("costs.toml").read_text("utf-8")
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from None


def _costs(name: str, entry: dict[str, Any], parameters: float | None) -> Costs:
    kind = entry["kind"]
    if kind == "sheet":
        if parameters is None:
            raise ConfigurationError(f"nobody has measured {name}: give the model's size with --parameters, as in 7e9")
        rate = entry["efficiency"] * entry["tflops"] * 1e12 / (2 * parameters)
        weights = parameters * BF16_BYTES / 2**30
    elif kind == "measured":
        rate, weights = entry["tokens_per_second"], entry["weights_gib"]
    else:
        raise ConfigurationError(f"the costs of {name} have kind = {kind!r}: it must be 'measured' or 'sheet'")
    if not rate:
        raise ConfigurationError(f"the costs of {name} have a rate of 0")
    device = Device(
        entry["fixed_ms"] / 1000,
        1 / rate,
        int(entry.get("batch_cost", 16_384)),
        images=int(entry.get("cached_images", 2_000)),
    )
    sizes = (entry.get(f"{part}_tokens") for part in ("image", "question", "answer"))
    return Costs(name, kind, entry["source"], device, entry["memory_gib"], weights, entry["start_seconds"], *sizes)
