"""What drift looks at of an answer, and reading it from files: an audit log, or what `score-file` wrote."""

import json
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Six

LEAST: Final = 200  # images that a reference must have
MOST: Final = 100_000  # images of a reference that are learnt


@dataclass(frozen=True, slots=True)
class Sample:
    """The numbers of one scored answer and what was decided on it."""

    scores: Six
    flags: tuple[str, ...] = ()
    verdict: str = ""  # empty where nothing was decided
    policy: tuple[str, str] = ("", "")  # name and digest
    time: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: an answered request, whose samples are of one item each."""

    number: int
    fingerprint: str  # empty where the line names no model
    samples: tuple[tuple[str, Sample], ...]  # each with what names its image; empty where nothing does


def read_lines(path: Path) -> Iterator[Line]:
    """Yields the lines of a file that hold scores; others, as those of overrides, are passed over.

    Fails with a ConfigurationError where the file cannot be read or holds something else than JSON objects.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.isspace():
                    continue
                try:
                    entry = json.loads(raw)
                except ValueError:
                    entry = None
                if not isinstance(entry, dict):
                    raise ConfigurationError(f"{path}, line {number}: this is no JSON object")
                if samples := _samples(entry, number):
                    yield Line(number, _fingerprint(entry), samples)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None


def of_new_images(lines: Iterable[Line]) -> Iterator[tuple[Line, Sample]]:
    """Yields the samples of lines whose image was not there before, as a server's drift takes them."""
    images: set[str] = set()
    for line in lines:
        for image, sample in line.samples:
            if not image or image not in images:
                images.add(image)
                yield line, sample


def read_reference(path: Path, fingerprint: str) -> list[Sample]:
    """Returns the samples of a file of reference, of a long one the last. Fails where it has too few, or has those of
    another model."""
    samples: deque[Sample] = deque(maxlen=MOST)
    for line, sample in of_new_images(read_lines(path)):
        if line.fingerprint and line.fingerprint != fingerprint:
            raise ConfigurationError(
                f"{path}, line {line.number}: this was scored by the model {line.fingerprint}, and {fingerprint} is "
                "served: make the reference with the model that it is for"
            )
        samples.append(sample)
    if len(samples) < LEAST:
        raise ConfigurationError(
            f"{path} has scores of {len(samples)} images, and a reference needs {LEAST}: give an audit log, or what "
            "medreward score-file wrote"
        )
    return list(samples)


def _samples(entry: Mapping[str, Any], number: int) -> tuple[tuple[str, Sample], ...]:
    """Returns one scored response of each item, as chance has it, which is the same whenever the file is read."""
    results = entry.get("results")
    items: dict[object, list[tuple[str, Sample]]] = {}
    for place, result in enumerate(results if isinstance(results, list) else [entry]):
        if isinstance(result, dict):
            result |= result.get("subject") or {}  # an audit log has there what can be erased
            if scores := _six(result.get("scores")):
                items.setdefault(result.get("item", place), []).append((_image(result), _sample(entry, result, scores)))
    return tuple(of_item[zlib.crc32(f"{number} {item}".encode()) % len(of_item)] for item, of_item in items.items())


def _sample(entry: Mapping[str, Any], result: Mapping[str, Any], scores: Six) -> Sample:
    policy = entry.get("policy")
    named = policy if isinstance(policy, dict) else {}
    return Sample(
        scores,
        tuple(map(str, result.get("flags") or ())),
        str(result.get("verdict") or ""),
        (str(named.get("name", "")), str(named.get("digest", ""))),
        str(entry.get("time") or ""),
    )


def _six(scores: object) -> Six | None:
    """Returns the six numbers of an object or of a list; None where there are none."""
    if isinstance(scores, dict):
        values: Sequence[object] = [scores.get(dimension) for dimension in DIMENSIONS]
    elif isinstance(scores, list) and len(scores) == len(DIMENSIONS):
        values = scores
    else:
        return None
    six = tuple(float(value) if isinstance(value, int | float) else None for value in values)
    return six if any(value is not None for value in six) else None


def _image(result: Mapping[str, Any]) -> str:
    """Returns the digest of the image that a result is about; without one, those of question and response."""
    images = result.get("images")
    if isinstance(images, list) and images and images[0]:
        return str(images[0])
    return f"{result['question']} {result.get('response')}" if result.get("question") else ""


def _fingerprint(entry: Mapping[str, Any]) -> str:
    model = entry.get("model")
    return str((model.get("fingerprint") if isinstance(model, dict) else entry.get("fingerprint")) or "")
